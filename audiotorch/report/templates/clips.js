// Cards that play: a button and a bar in place of the browser's player, and a cursor on pictures.

{
  const isShown = (card) => !card.hidden;

  const follow = (audio, draw) => {
    const step = () => {
      draw();
      if (!audio.paused) requestAnimationFrame(step);
    };
    audio.addEventListener("play", step);
    for (const name of ["pause", "seeked", "ended", "loadedmetadata"])
      audio.addEventListener(name, draw);
  };

  // A sound that was not played yet has no length: it is loaded first.
  const seek = (audio, fraction) => {
    if (audio.duration) {
      audio.currentTime = fraction * audio.duration;
      return;
    }
    audio.addEventListener("loadedmetadata", () => seek(audio, fraction), { once: true });
    audio.preload = "auto";
    audio.load();
  };

  const toggle = (audio) => {
    if (!audio.paused) return audio.pause();
    return audio.play().catch((error) => {
      audio.closest(".player").dataset.failed = error.message;
    });
  };

  const equip = (card) => {
    const audio = card.querySelector("audio");
    if (!audio) return;
    audio.controls = false;
    const button = make("button", undefined, "play");
    const place = make("input");
    const time = make("span", "", "time");
    button.type = "button";
    button.tabIndex = -1; // the card itself has the focus, and its keys play
    button.setAttribute("aria-label", "Play");
    Object.assign(place, { type: "range", min: 0, max: 1000, value: 0, tabIndex: -1 });
    place.setAttribute("aria-label", "Position");
    button.addEventListener("click", () => {
      card.focus({ preventScroll: true });
      toggle(audio);
    });
    place.addEventListener("input", () => seek(audio, place.value / 1000));
    audio.after(button, place, time);
    const cursors = [...card.querySelectorAll("[data-spans] .frame")].map((frame) => {
      const cursor = make("i", undefined, "cursor");
      frame.append(cursor);
      frame.addEventListener("click", (event) => {
        const box = frame.getBoundingClientRect();
        seek(audio, Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
        if (audio.paused) toggle(audio);
      });
      return cursor;
    });
    follow(audio, () => {
      const fraction = audio.duration ? audio.currentTime / audio.duration : 0;
      place.value = 1000 * fraction;
      time.textContent = audio.duration
        ? `${audio.currentTime.toFixed(1)} / ${audio.duration.toFixed(1)} s`
        : "";
      for (const cursor of cursors) cursor.style.left = `${100 * fraction}%`;
      button.setAttribute("aria-label", audio.paused ? "Play" : "Stop");
      card.classList.toggle("playing", !audio.paused);
      card.classList.toggle("begun", fraction > 0);
    });
  };

  const cards = [...document.querySelectorAll(".card")];
  cards.forEach(equip);

  for (const element of document.querySelectorAll(".clips")) {
    const filter = element.querySelector('input[type="search"]');
    if (!filter) continue;
    const own = [...element.querySelectorAll(".card")];
    const texts = own.map((card) =>
      [...card.querySelectorAll("h4, li, figcaption")]
        .map((part) => part.textContent)
        .join("\n")
        .toLowerCase(),
    );
    // The heading above a card belongs to it, too: one may look for a class.
    let heading = null;
    const headings = new Map();
    for (const child of element.querySelector(".cards").children) {
      if (child.matches(".group")) headings.set((heading = child), []);
      else if (heading) headings.get(heading).push(child);
    }
    for (const [group, below] of headings)
      for (const card of below) texts[own.indexOf(card)] += `\n${group.textContent.toLowerCase()}`;
    const told = element.querySelector("output");
    filter.addEventListener("input", () => {
      const wanted = terms(filter.value);
      own.forEach((card, i) => {
        card.hidden = !matches(texts[i], wanted);
        if (card.hidden) card.querySelector("audio")?.pause();
      });
      for (const [group, below] of headings) group.hidden = !below.some(isShown);
      const left = own.filter(isShown).length;
      told.textContent = wanted.length ? `${left} of ${own.length} clips` : `${own.length} clips`;
    });
  }

  // To the next or previous card; what plays goes on there.
  const move = (steps) => {
    const shown = cards.filter(isShown);
    const current = shown.indexOf(document.activeElement.closest(".card"));
    const start = shown.findIndex((card) => card.getBoundingClientRect().bottom > 60);
    const next = shown[current < 0 ? Math.max(0, start) : current + steps];
    if (!next) return;
    // Asked of the sound itself: the card's class follows an event later.
    const sound = current >= 0 && shown[current].querySelector("audio");
    const playing = sound && !sound.paused;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    if (playing) {
      stopAll();
      const audio = next.querySelector("audio");
      if (audio) toggle(audio);
    }
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (document.getElementById("help").open) return;
    const card = event.target.closest(".card");
    const onCard = card === event.target;
    const step =
      { j: 1, k: -1 }[event.key] ||
      (onCard && { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key]);
    if (step && cards.length) {
      move(step);
      event.preventDefault();
    } else if (onCard && (event.key === " " || event.key === "Enter")) {
      const audio = card.querySelector("audio");
      if (audio) toggle(audio);
      event.preventDefault();
    }
  });
}
