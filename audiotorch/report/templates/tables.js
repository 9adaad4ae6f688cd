// Tables: sorted by what their cells are, filtered, and drawn piece by piece as they are scrolled.

{
  const CHUNK = 200;
  const MOST_PRINTED = 2000;
  const LONG = 50; // letters that need a wide column
  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  const compare = (a, b) => {
    const numbers = (typeof a === "number") + (typeof b === "number");
    if (numbers === 2) return a - b;
    return numbers === 1 ? (typeof a === "number" ? -1 : 1) : words.compare(a, b);
  };

  // Cells without a value come last, whichever way one sorts.
  const sorted = (indices, rows, column, sign) =>
    indices.sort((i, j) => {
      const [a, b] = [rows[i][column], rows[j][column]];
      const empty = (a === null || a === "") - (b === null || b === "");
      return empty || (a === null ? 0 : sign * compare(a, b)) || i - j;
    });

  const bar = (value, most) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    rect.setAttribute("width", `${(100 * (value || 0)) / most}%`);
    rect.setAttribute("height", "100%");
    svg.setAttribute("class", "bar");
    svg.setAttribute("aria-hidden", "true");
    svg.append(rect);
    return svg;
  };

  class SortedTable {
    constructor(element) {
      Object.assign(this, dataOf(element));
      this.box = element.querySelector(".box");
      this.body = element.querySelector("tbody");
      this.heads = [...element.querySelectorAll("th")];
      this.told = element.querySelector("output");
      this.filter = element.querySelector('input[type="search"]');
      this.wanted = [];
      this.column = null;
      this.sign = 1;
      this.heads.forEach((head, column) => {
        head.setAttribute("aria-sort", "none");
        head.firstChild.addEventListener("click", () => this.sortBy(column));
      });
      if (this.filter)
        this.filter.addEventListener("input", () => {
          this.wanted = terms(this.filter.value);
          this.show();
        });
      this.box.addEventListener("scroll", () => this.fill());
      addEventListener("beforeprint", () => this.draw(MOST_PRINTED));
      this.show();
    }

    // Up, down, and back to the order it came in.
    sortBy(column) {
      if (this.column !== column) [this.column, this.sign] = [column, 1];
      else if (this.sign === 1) this.sign = -1;
      else this.column = null;
      this.heads.forEach((head, i) => {
        const order = this.sign === 1 ? "ascending" : "descending";
        head.setAttribute("aria-sort", i === this.column ? order : "none");
      });
      this.show();
    }

    show() {
      this.texts ||= this.rows.map((row) => row.join("\n").toLowerCase());
      const indices = [...this.rows.keys()].filter((i) => matches(this.texts[i], this.wanted));
      this.order =
        this.column === null ? indices : sorted(indices, this.rows, this.column, this.sign);
      const n = this.rows.length;
      if (this.told)
        this.told.textContent = this.wanted.length ? `${indices.length} of ${n} rows` : `${n} rows`;
      this.body.replaceChildren();
      this.box.scrollTop = 0;
      this.draw(CHUNK);
      if (!indices.length) this.body.append(this.emptyRow());
    }

    emptyRow() {
      const row = make("tr");
      const cell = make("td", "nothing found", "silent");
      cell.colSpan = this.heads.length;
      row.append(cell);
      return row;
    }

    fill() {
      const below = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight;
      if (below < 600) this.draw(this.body.rows.length + CHUNK);
    }

    // Have so many rows in the page.
    draw(count) {
      const piece = document.createDocumentFragment();
      for (const i of this.order.slice(this.body.rows.length, count)) piece.append(this.row(i));
      this.body.append(piece);
    }

    row(i) {
      const row = make("tr");
      this.rows[i].forEach((value, column) => {
        const cell = make("td", value === null ? "" : String(value));
        if (this.numeric[column]) cell.className = "number";
        else if (String(value).length > LONG) cell.className = "long";
        if (column === this.bars) cell.append(bar(value, this.most));
        row.append(cell);
      });
      return row;
    }
  }

  for (const element of document.querySelectorAll(".table")) new SortedTable(element);
}
