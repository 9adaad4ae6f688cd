"use strict";

// What every part uses. Texts go in by textContent alone: none is ever read as HTML.

const make = (name, text, className) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

const dataOf = (element) =>
  JSON.parse(element.querySelector('script[type="application/json"]').textContent);

const clock = (seconds) => {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
};

// Terms of a filter: all must be in the text, in any order.
const terms = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
const matches = (text, wanted) => wanted.every((term) => text.includes(term));

const isTyping = (target) => target.matches("input:not([type=range]), textarea, select");

// One sound at a time.
document.addEventListener(
  "play",
  (event) => {
    for (const other of document.querySelectorAll("audio"))
      if (other !== event.target && !other.paused) other.pause();
  },
  true,
);

const stopAll = () => {
  for (const audio of document.querySelectorAll("audio")) audio.pause();
};

// Light and dark: as the system has it, until one is chosen.
{
  const root = document.documentElement;
  const wantsDark = matchMedia("(prefers-color-scheme: dark)");
  const kept = {
    get: () => {
      try {
        return localStorage.getItem("audiotorch-theme");
      } catch {
        return null; // no storage for pages from files
      }
    },
    set: (theme) => {
      try {
        localStorage.setItem("audiotorch-theme", theme);
      } catch {
        // chosen for this time only
      }
    },
  };
  const apply = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  };
  apply(kept.get());
  document.querySelector("nav .buttons").hidden = false;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : wantsDark.matches;
    apply(isDark ? "light" : "dark");
    kept.set(root.dataset.theme);
  });
}

// The section that is read is marked in the navigation.
{
  const links = [...document.querySelectorAll("nav li a")];
  const sections = links.map((link) => document.getElementById(link.hash.slice(1)));
  let asked = false;
  const mark = () => {
    asked = false;
    const line = 120;
    let current = sections.findLastIndex((one) => one.getBoundingClientRect().top < line);
    const atEnd = scrollY > 0 && scrollY + innerHeight >= document.body.scrollHeight - 4;
    if (atEnd) current = sections.length - 1;
    links.forEach((link, i) => {
      if (i !== Math.max(0, current)) link.removeAttribute("aria-current");
      else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        const list = link.closest("ul");
        list.scrollLeft = link.offsetLeft - list.offsetLeft - list.clientWidth / 3;
      }
    });
  };
  addEventListener("scroll", () => {
    if (!asked) requestAnimationFrame(mark);
    asked = true;
  });
  if (links.length) mark();
}

// Keys that hold everywhere; those of clips are in their own part.
{
  const help = document.getElementById("help");
  document.getElementById("keys").addEventListener("click", () => help.showModal());
  const nearestFilter = () => {
    const filters = [...document.querySelectorAll('input[type="search"]')];
    const own = document.activeElement.closest("section, .transcripts");
    const inView = filters.filter((one) => {
      const box = one.getBoundingClientRect();
      return box.top >= 0 && box.bottom <= innerHeight;
    });
    return (
      filters.find((one) => own && own.contains(one)) || // of what has the focus
      inView[0] ||
      filters.find((one) => one.getBoundingClientRect().top > 0) ||
      filters.at(-1)
    );
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.key === "Escape") {
      stopAll();
      if (isTyping(event.target)) {
        if (event.target.value) {
          event.target.value = "";
          event.target.dispatchEvent(new Event("input", { bubbles: true }));
        }
        event.target.blur();
      }
    } else if (isTyping(event.target)) {
      return;
    } else if (event.key === "?") {
      help.showModal();
      event.preventDefault();
    } else if (event.key === "/") {
      const filter = nearestFilter();
      if (!filter) return;
      filter.focus();
      filter.select();
      event.preventDefault();
    }
  });
}
