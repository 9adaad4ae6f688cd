// Transcripts: words that lead to their times, the one that is spoken, and a search over all.

{
  const [START, END, WORDS, SURE] = [0, 1, 2, 3];
  const [WORD, FROM, TO, PROBABILITY] = [0, 1, 2, 3];
  const SHORTEST = 2; // letters of a search

  // Letters in which the search term is found: [from, to], in lower case of the same length.
  const found = (text, wanted) => {
    const hits = [];
    if (wanted.length < SHORTEST) return hits;
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length))
      hits.push([at, at + wanted.length]);
    return hits;
  };

  // Lower case that keeps the places of letters.
  const lower = (text) =>
    [...text].map((x) => (x.toLowerCase().length === x.length ? x.toLowerCase() : x)).join("");

  // Put a text into an element, with marks where it was found.
  const write = (element, text, start, hits) => {
    element.replaceChildren();
    let at = 0;
    for (const [from, to] of hits) {
      const [a, b] = [Math.max(at, from - start), Math.min(text.length, to - start)];
      if (b <= a) continue;
      element.append(text.slice(at, a), make("mark", text.slice(a, b)));
      at = b;
    }
    element.append(text.slice(at));
  };

  class Speech {
    constructor(element, segments, doubtful) {
      this.element = element;
      this.doubtful = doubtful;
      this.audio = element.querySelector("audio");
      this.lines = [...element.querySelectorAll(".speech p")];
      // What can be clicked: words, or segments that have none.
      this.parts = [];
      this.segments = segments.map((segment, i) => this.takeIn(segment, i));
      this.title = lower(element.querySelector("h3").textContent);
      this.marked = new Set();
      this.now = null;
      if (this.audio) {
        const step = () => {
          this.showNow();
          if (!this.audio.paused) requestAnimationFrame(step);
        };
        this.audio.addEventListener("play", step);
        for (const name of ["seeked", "timeupdate"])
          this.audio.addEventListener(name, () => this.showNow());
      }
    }

    takeIn(segment, index) {
      const text = this.lines[index].querySelector("span").textContent;
      const own = segment[WORDS].length
        ? segment[WORDS]
        : [[text, segment[START], segment[END], segment[SURE]]];
      let at = 0;
      const parts = own.map((word) => {
        const part = { index, text: word[WORD], start: word[FROM], end: word[TO] };
        part.blank = part.text.length - part.text.trimStart().length;
        part.at = at + part.blank;
        part.doubtful = word[PROBABILITY] < this.doubtful;
        part.probability = word[PROBABILITY];
        at += word[WORD].length;
        this.parts.push(part);
        return part;
      });
      return { parts, lower: lower(parts.map((part) => part.text).join("")), drawn: false };
    }

    // Words become buttons when they come near; tens of thousands at once would be slow.
    draw(index) {
      const segment = this.segments[index];
      if (segment.drawn) return;
      segment.drawn = true;
      const place = this.lines[index].querySelector("span");
      place.replaceChildren();
      for (const part of segment.parts) {
        const button = make("button", part.text.trimStart(), "word");
        button.type = "button";
        button.title = `${part.start.toFixed(2)} s`;
        if (part.doubtful) {
          button.classList.add("doubtful");
          button.title += `, probability ${part.probability.toFixed(2)}`;
        }
        if (this.audio) button.addEventListener("click", () => this.play(part));
        else button.disabled = true;
        part.button = button;
        if (place.firstChild) place.append(part.text.slice(0, part.blank));
        place.append(button);
      }
      if (segment.hits) this.mark(index, segment.hits);
    }

    play(part) {
      const start = () => {
        this.audio.currentTime = part.start;
        this.showNow();
        this.audio.play().catch(() => {});
      };
      if (this.audio.readyState) start();
      else {
        this.audio.addEventListener("loadedmetadata", start, { once: true });
        this.audio.preload = "auto";
        this.audio.load();
      }
    }

    showNow() {
      const time = this.audio.currentTime + 0.01;
      let [low, high] = [0, this.parts.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.parts[middle].start <= time) low = middle + 1;
        else high = middle;
      }
      const part = this.parts[low - 1];
      const now = part && time < part.end + 0.3 ? part : null;
      if (now === this.now) return;
      if (this.now?.button) this.now.button.classList.remove("now");
      if (now) {
        this.draw(now.index);
        now.button.classList.add("now");
        if (now.index !== this.now?.index && !this.audio.paused)
          this.lines[now.index].scrollIntoView({ block: "nearest" });
      }
      this.now = now;
    }

    // How often the term is in it; `null` if there is none to look for.
    search(wanted) {
      for (const index of this.marked) this.mark(index, []);
      this.marked.clear();
      let count = 0;
      this.segments.forEach((segment, index) => {
        const hits = found(segment.lower, wanted);
        count += hits.length;
        segment.hits = hits.length ? hits : null;
        if (!hits.length) return;
        this.marked.add(index);
        if (segment.drawn) this.mark(index, hits);
      });
      return count;
    }

    mark(index, hits) {
      const segment = this.segments[index];
      if (!segment.drawn) return;
      for (const part of segment.parts) write(part.button, part.text.trimStart(), part.at, hits);
    }
  }

  for (const element of document.querySelectorAll(".transcripts")) {
    const { doubtful, recordings } = dataOf(element);
    const articles = [...element.querySelectorAll(".recording")];
    const speeches = articles.map((one, i) => new Speech(one, recordings[i], doubtful));

    const near = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (!isIntersecting) continue;
          const [speech, index] = places.get(target);
          speech.draw(index);
          near.unobserve(target);
        }
      },
      { rootMargin: "800px 0px" },
    );
    const places = new Map();
    for (const speech of speeches)
      speech.lines.forEach((line, index) => {
        places.set(line, [speech, index]);
        near.observe(line);
      });

    const field = element.querySelector('input[type="search"]');
    const told = element.querySelector("output");
    const before = told.textContent;
    let current = null; // [recording, segment, number of the mark in it] that was gone to

    const update = () => {
      const wanted = lower(field.value.trim());
      const isSearch = wanted.length >= SHORTEST;
      let [hits, shown] = [0, 0];
      speeches.forEach((speech, i) => {
        const count = speech.search(wanted);
        hits += count;
        articles[i].hidden = isSearch && !count && !speech.title.includes(wanted);
        shown += !articles[i].hidden;
        if (articles[i].hidden && speech.audio) speech.audio.pause();
      });
      current = null;
      told.textContent = isSearch
        ? `${hits} ${hits === 1 ? "hit" : "hits"} in ${shown} of ${articles.length} recordings`
        : before;
    };

    // To the next or previous line with a hit.
    const go = (step) => {
      const lines = speeches.flatMap((speech, i) =>
        articles[i].hidden ? [] : [...speech.marked].sort((a, b) => a - b).map((k) => [speech, k]),
      );
      if (!lines.length) return;
      const at = current === null ? (step > 0 ? 0 : lines.length - 1) : current + step;
      current = (at + lines.length) % lines.length;
      const [speech, index] = lines[current];
      speech.draw(index);
      for (const line of element.querySelectorAll(".speech p.at")) line.classList.remove("at");
      speech.lines[index].classList.add("at");
      speech.lines[index].scrollIntoView({ block: "center" });
    };

    field.addEventListener("input", update);
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      go(event.shiftKey ? -1 : 1);
      event.preventDefault();
    });
  }
}
