"use strict";
/* The page: takes a recording, asks the server it came from, and shows the answer.
   Names and labels are text, never markup: only textContent and attributes set by value. */

const $ = (id) => document.getElementById(id);
const MOST_BARS = 10, MOST_LINES = 5;
let model = null, turn = 0, address = null, last = null;

const percent = (p) => (p >= 0.9995 || p < 0.0005 && p > 0 ? (p < 0.5 ? "<0.1 %" : "100 %") : `${(100 * p).toFixed(1)} %`);
const number = (v) => (v === null || v === undefined ? "none" : Number(v.toPrecision(4)).toString());
const rounded = (s) => Number(s.toPrecision(2));
const time = (s) => (s < 60 ? `${s.toFixed(s < 10 ? 2 : 1)} s` : `${Math.floor(s / 60)} min${Math.round(s % 60) ? ` ${Math.round(s % 60)} s` : ""}`);

function element(name, className, text, parent) {
  const found = document.createElement(name);
  if (className) found.className = className;
  if (text !== undefined) found.textContent = text;
  if (parent) parent.append(found);
  return found;
}

/* --- what is said ----------------------------------------------------------------------------- */

function complain(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function busy(text) {
  $("status").textContent = text;
  $("status").hidden = !text;
  $("result").classList.toggle("old", Boolean(text));
}

async function ask(path, file) {
  const body = new FormData();
  body.append("file", file, file.name || "recording");
  let response;
  try {
    response = await fetch(path, {method: "POST", body});
  } catch {
    throw new Error("The server cannot be reached: is it still running?");
  }
  const answer = await response.json().catch(() => ({error: `The server answered ${response.status}.`}));
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
  return answer;
}

/* --- a recording ------------------------------------------------------------------------------ */

async function take(file) {
  const mine = ++turn;
  complain("");
  if (file.size > model.max_bytes) {
    complain(`${file.name}: is larger than ${model.max_bytes / 1e6} MB, the most that this server takes; choose a shorter part.`);
    return;
  }
  if (file.size === 0) {
    complain(`${file.name}: is empty, or a folder.`);
    return;
  }
  busy(`Listening to ${file.name} ...`);
  const width = Math.round(Math.min(1600, Math.max(240, $("drop").clientWidth - 36)));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? 1 : 0;
  try {
    const answer = await ask(`predict?window=auto&spectrogram=1&width=${width}&dark=${dark}`, file);
    if (mine !== turn) return;
    show(file, answer);
  } catch (error) {
    if (mine !== turn) return;
    busy("");
    $("result").hidden = true;
    complain(error.message);
    return;
  }
  await explain(mine, file, width);
}

async function explain(mine, file, width) {
  $("why").setAttribute("aria-busy", "true");
  $("reason").textContent = "Looking for the reason ...";
  $("weights").replaceChildren();
  $("explanation").hidden = true;
  let answer;
  try {
    answer = await ask(`predict?explain=picture&width=${width}`, file);
  } catch (error) {
    answer = {reason: error.message};
  }
  if (mine !== turn) return;
  $("why").setAttribute("aria-busy", "false");
  $("reason").textContent = answer.reason.charAt(0).toUpperCase() + answer.reason.slice(1);
  if (answer.explanation) {
    $("explanation").src = answer.explanation;
    $("explanation").alt = `Picture of the explanation: ${answer.reason}`;
    $("explanation").hidden = false;
  } else if (answer.contributions) {
    signedBars($("weights"), answer.contributions, "What each feature adds to the answer, or takes from it");
  } else if (answer.deviations) {
    signedBars($("weights"), answer.deviations, "Standard deviations from the mean of normal recordings");
  }
}

function show(file, answer) {
  busy("");
  last = answer;
  $("result").hidden = false;
  $("name").textContent = `${file.name} (${time(answer.seconds)})`;
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(file);
  $("unplayable").hidden = true;
  $("player").src = address;
  $("warning").textContent = answer.warning || "";
  $("warning").hidden = !answer.warning;
  $("spectrogram").src = answer.spectrogram;
  $("spectrogram").alt = `Spectrogram of ${file.name}, ${time(answer.seconds)}`;
  if (model.task === "anomaly") showDetection(answer);
  else showClasses(answer);
  showLine(answer);
}

/* A recording of the browser's own has no length in its header; seeking far finds it. */
$("player").addEventListener("loadedmetadata", (event) => {
  const player = event.target;
  if (player.duration !== Infinity) return;
  player.addEventListener("durationchange", () => { player.currentTime = 0; }, {once: true});
  player.currentTime = 1e7;
});
$("player").addEventListener("error", () => { $("unplayable").hidden = false; });

/* --- answers ---------------------------------------------------------------------------------- */

function showClasses(answer) {
  const ranked = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  const [best, p] = ranked[0];
  $("verdict").textContent = answer.label === null ? `Unsure: at most ${best}, ${percent(p)}` : `${answer.label}, ${percent(p)}`;
  const place = $("bars");
  place.replaceChildren();
  const add = (list, parent) => list.forEach(([label, value], i) => bar(parent, label, value, parent === place && i === 0));
  add(ranked.slice(0, MOST_BARS), place);
  if (ranked.length > MOST_BARS) {
    const more = element("details", "", undefined, place);
    element("summary", "", `${ranked.length - MOST_BARS} more classes`, more);
    add(ranked.slice(MOST_BARS), more);
  }
  if (model.task === "multilabel") element("p", "note", "Each class is judged by itself: several may be there.", place);
}

function bar(place, label, value, best) {
  const row = element("div", best ? "bar best" : "bar", undefined, place);
  element("div", "label", label, row).title = label;
  const track = element("div", "track", undefined, row);
  element("div", "fill", undefined, track).style.width = `${100 * value}%`;
  element("div", "value", percent(value), row);
}

function signedBars(place, values, caption) {
  element("p", "note", caption, place);
  const most = Math.max(...Object.values(values).map(Math.abs), 1e-30);
  for (const [label, value] of Object.entries(values)) {
    const row = element("div", "bar best", undefined, place);
    element("div", "label", label, row).title = label;
    const track = element("div", "track", undefined, row);
    const fill = element("div", value < 0 ? "fill signed against" : "fill signed", undefined, track), share = 50 * Math.abs(value) / most;
    fill.style.width = `${share}%`;
    fill.style.left = `${value < 0 ? 50 - share : 50}%`;
    element("div", "middle", undefined, track);
    element("div", "value", (value > 0 ? "+" : "") + number(value), row);
  }
}

function showDetection(answer) {
  const verdict = $("verdict");
  verdict.className = answer.is_anomaly ? "bad" : answer.is_anomaly === false ? "good" : "";
  verdict.textContent = {true: "Anomaly", false: "Normal"}[answer.is_anomaly] || "No threshold: the score alone";
  if (answer.level) verdict.textContent += ` (${answer.level})`;
  const facts = element("dl", "facts");
  const add = (name, value) => {
    const pair = element("div", "", undefined, facts);
    element("dt", "", name, pair);
    element("dd", "", value, pair);
  };
  add("score", number(answer.score));
  add("threshold", number(answer.threshold));
  add("p-value", number(answer.p_value));
  $("bars").replaceChildren(facts);
  if (answer.p_value !== null) {
    element("p", "note", `Of normal recordings, a share of ${number(answer.p_value)} scores as high.`, $("bars"));
  }
}

/* --- over time -------------------------------------------------------------------------------- */

function showLine(answer) {
  const windows = answer.windows || [];
  $("line").hidden = windows.length < 2;
  if (windows.length < 2) return;
  const detector = model.task === "anomaly";
  $("line-title").textContent = detector ? "Score over time" : "Probabilities over time";
  $("line-note").textContent = `Windows of ${rounded(answer.window_seconds)} s, every ${rounded(answer.hop_seconds)} s.` +
    (detector ? " The threshold was made for whole recordings." : "");
  const series = detector ? [{name: "score", values: windows.map((w) => w.score)}] : classSeries(windows, answer.label);
  const limits = detector ? Object.entries(model.thresholds).filter(([, v]) => v !== null).map(([name, value]) => ({name: `${name} (of whole recordings)`, value})) : [];
  const values = [...series.flatMap((s) => s.values), ...limits.map((l) => l.value)];
  const low = detector ? Math.min(0, ...values) : 0, high = detector ? Math.max(...values) * 1.05 || 1 : 1;
  drawChart($("chart"), series, windows, {
    seconds: answer.seconds, low, high: Math.max(high, low + 1e-9), limits, player: $("player"),
    unit: detector ? number : (v) => `${Math.round(100 * v)} %`,
    label: `${$("line-title").textContent}: ${series.map((s) => s.name).join(", ")}, ${windows.length} windows`,
    seek: (s) => { $("player").currentTime = s; $("player").play().catch(() => {}); },
  });
  fillTable(windows, series, detector);
}

/* The answer's class, and those that come highest in some window. */
function classSeries(windows, best) {
  const peaks = model.labels.map((label) => [label, Math.max(...windows.map((w) => w.probabilities[label]))]);
  peaks.sort((a, b) => (b[0] === best) - (a[0] === best) || b[1] - a[1]);
  return peaks.slice(0, MOST_LINES).map(([name]) => ({name, values: windows.map((w) => w.probabilities[name])}));
}

function fillTable(windows, series, detector) {
  const table = $("windows");
  table.replaceChildren();
  const head = element("tr", "", undefined, element("thead", "", undefined, table));
  for (const name of ["start s", "end s", detector ? "answer" : "label", ...series.map((s) => s.name)]) {
    element("th", "", name, head).scope = "col";
  }
  const body = element("tbody", "", undefined, table);
  windows.forEach((w, k) => {
    const row = element("tr", "", undefined, body);
    const cells = series.map((s) => (detector ? number(s.values[k]) : percent(s.values[k])));
    for (const cell of [w.start_seconds.toFixed(2), w.end_seconds.toFixed(2), w.label ?? "unsure", ...cells]) element("td", "", cell, row);
  });
}

/* --- choose, drop, record --------------------------------------------------------------------- */

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => {
  if (event.target.files.length) take(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  // Anywhere: a file that misses the field would else replace the page.
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

let recorder = null;
$("record").addEventListener("click", () => (recorder ? recorder.stop() : record()));

async function record() {
  complain("");
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    complain("This browser records only on https pages and on this machine's own address, http://localhost.");
    return;
  }
  let sound;
  try {
    // As the microphone hears it: what telephony mends, the model never heard in training.
    sound = await navigator.mediaDevices.getUserMedia({audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  } catch (error) {
    complain(`The microphone cannot be used (${error.message}): allow it for this page, or choose a file.`);
    return;
  }
  const parts = [], started = performance.now();
  recorder = new MediaRecorder(sound);
  recorder.ondataavailable = (event) => parts.push(event.data);
  const tick = () => {
    const seconds = (performance.now() - started) / 1000;
    $("record").textContent = `Stop (${seconds.toFixed(0)} s)`;
    if (seconds > model.max_seconds - 1 && recorder) recorder.stop();
  };
  const timer = setInterval(tick, 250);
  recorder.onstop = () => {
    clearInterval(timer);
    sound.getTracks().forEach((track) => track.stop());
    const kind = recorder.mimeType.split(";")[0] || "audio/webm";
    recorder = null;
    $("record").textContent = "Record";
    $("record").setAttribute("aria-pressed", "false");
    const suffix = {"audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg"}[kind] || "webm";
    take(new File(parts, `recording.${suffix}`, {type: kind}));
  };
  recorder.start(1000);
  $("record").setAttribute("aria-pressed", "true");
  tick();
}

/* --- start ------------------------------------------------------------------------------------ */

$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("curl").textContent).catch(() => getSelection().selectAllChildren($("curl")));
  $("copy").textContent = "Copied";
});

let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => { if (last && !$("result").hidden) showLine(last); }, 150);
});

async function start() {
  for (const id of ["choose", "record"]) $(id).disabled = true;
  $("curl").textContent = `curl -F file=@clip.wav ${location.origin}/predict`;
  try {
    const response = await fetch("model");
    model = await response.json();
    if (!response.ok) throw new Error(model.error);
  } catch (error) {
    complain(error.message || "The server cannot be reached.");
    return;
  }
  const what = model.task === "anomaly" ? "A detector of what is not normal" :
    `${model.labels.length} classes: ${model.labels.slice(0, 12).join(", ")}${model.labels.length > 12 ? " ..." : ""}`;
  $("about").textContent = `${what}. Listens at ${model.sample_rate / 1000} kHz.`;
  $("limits").textContent = `Up to ${time(model.max_seconds)} and ${model.max_bytes / 1e6} MB; it stays on the machine that runs the server.`;
  for (const id of ["choose", "record"]) $(id).disabled = false;
}
start();
