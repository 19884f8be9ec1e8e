// Draws the games, and follows them. What happens comes by server-sent events; each move tells what
// it captured, so the script can step back and forth without knowing the rules.
"use strict";

const LETTERS = "ABCDEFGHJKLMNOPQRST";
const SVG = "http://www.w3.org/2000/svg";
const SIDES = ["black", "white"];
const NAMES = { black: "Black", white: "White" };

// The server says every 15 seconds that it is there. After so many milliseconds of silence the
// connection is broken, whatever the browser believes.
const SILENCE = 40000;
// Between two attempts to connect, and a random part more: all browsers lose a server at once.
const PAUSES = [500, 1000, 2000, 4000, 8000];
// A page that nobody looks at for so long lets the connection go.
const HIDDEN = 300000;

const byId = (id) => document.getElementById(id);
const other = (colour) => (colour === "black" ? "white" : "black");

function make(parent, kind, attributes = {}, text = null) {
  const svg = parent.namespaceURI === SVG;
  const element = svg ? document.createElementNS(SVG, kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

function plural(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

function inWords(result) {
  if (result === "0") return "A draw";
  const winner = result[0] === "B" ? "Black" : "White";
  const by = result.slice(2);
  if (by === "R") return `${winner} wins by resignation`;
  return `${winner} wins by ${by} point${by === "1" ? "" : "s"}`;
}

function moveInWords([colour, point, captured]) {
  if (point === null) return `${NAMES[colour]} passes`;
  const taken = captured.length ? `, captures ${plural(captured.length, "stone")}` : "";
  return `${NAMES[colour]} plays ${point}${taken}`;
}

// The connection.

class Connection {
  // take: is called with each event that has data. missing: is called if there is no such thing.
  constructor(path, take, missing) {
    this.path = path;
    this.take = take;
    this.missing = missing;
    this.last = "";
    this.attempts = 0;
    this.timer = null;
    this.hiding = null;
    document.addEventListener("visibilitychange", () => this.seen());
    window.addEventListener("online", () => this.open());
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", (event) => event.persisted && this.open());
    this.open();
  }

  open() {
    this.close();
    const query = this.last ? `?last=${encodeURIComponent(this.last)}` : "";
    const source = new EventSource(this.path + query);
    this.source = source;
    source.onopen = () => {
      this.attempts = 0;
      this.isMissing = false;
      say("live", "Live");
      this.heard();
    };
    source.onerror = () => this.lost();
    source.addEventListener("beat", () => this.heard());
    source.onmessage = (event) => {
      this.heard();
      if (this.take(JSON.parse(event.data))) this.last = event.lastEventId;
      else this.restart();
    };
    this.heard();
  }

  close() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
  }

  // Something does not fit to what was there before: all of it, once more.
  restart() {
    this.last = "";
    this.again();
  }

  heard() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lost(), SILENCE);
  }

  // The browser would try again by itself after some errors, after others not.
  lost() {
    this.close();
    if (!this.isMissing) say("lost", "Connection lost. Trying again…");
    this.again();
    // It does not say why.
    fetch(this.path.replace(/^\/events/, this.path === "/events" ? "/api/games" : "/api/game"))
      .then((answer) => {
        if (answer.status !== 404) return;
        this.isMissing = true;
        this.missing();
      })
      .catch(() => null);
  }

  again() {
    this.close();
    const pause = PAUSES[Math.min(this.attempts++, PAUSES.length - 1)];
    this.timer = setTimeout(() => this.open(), pause * (1 + Math.random() / 2));
  }

  seen() {
    clearTimeout(this.hiding);
    if (!document.hidden) {
      if (!this.source) this.open();
      return;
    }
    this.hiding = setTimeout(() => {
      this.close();
      say("connecting", "Paused");
    }, HIDDEN);
  }
}

function say(state, text) {
  const element = byId("connection");
  element.dataset.state = state;
  if (element.textContent !== text) element.textContent = text;
}

// The list of games.

class List {
  constructor() {
    this.rows = new Map();
    byId("list").hidden = false;
    document.title = "Games of Go";
    this.connection = new Connection("/events", (event) => this.take(event), () => null);
  }

  take(event) {
    if (event.kind === "games") {
      const there = new Set(event.games.map((game) => game.game));
      for (const [name, row] of this.rows) {
        if (there.has(name)) continue;
        row.remove();
        this.rows.delete(name);
      }
      event.games.forEach((game) => this.show(game));
    } else if (event.kind === "game") {
      this.show(event);
    }
    byId("noGames").hidden = this.rows.size > 0;
    return true;
  }

  show(game) {
    let row = this.rows.get(game.game);
    if (!row) {
      row = document.createElement("li");
      this.rows.set(game.game, row);
      const after = [...this.rows.keys()].filter((name) => name > game.game).sort()[0];
      byId("games").insertBefore(row, after === undefined ? null : this.rows.get(after));
      make(row, "a", { href: `/game/${encodeURIComponent(game.game)}` });
    }
    // The link stays, so that who has the focus on it keeps it.
    const link = row.firstChild;
    link.replaceChildren();
    make(link, "strong", {}, game.game);
    const sides = make(link, "div", { class: "sides" });
    for (const colour of SIDES) {
      make(sides, "i", { class: `stone ${colour}`, role: "img", "aria-label": NAMES[colour] });
      make(sides, "bdi", {}, game.players[colour] ?? "nobody yet");
    }
    const state = game.result === null ? `${NAMES[game.turn]} to play` : inWords(game.result);
    const size = `${game.size}×${game.size}`;
    make(link, "div", { class: "state" }, `${size}, ${plural(game.moves, "move")}. ${state}.`);
  }
}

// The board: lines, and stones that come and go.

class Board {
  constructor(svg) {
    this.svg = svg;
    this.size = 0;
  }

  place(point) {
    return [LETTERS.indexOf(point[0]), this.size - Number(point.slice(1))];
  }

  draw(size) {
    if (size === this.size) return;
    this.size = size;
    this.stones = new Map();
    this.mark = null;
    const svg = this.svg;
    const margin = 1.3;
    const width = size - 1 + 2 * margin;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `${-margin} ${-margin} ${width} ${width}`);
    this.title = make(svg, "title", { id: "boardTitle" });
    this.text = make(svg, "desc", { id: "boardText" });
    const definitions = make(svg, "defs");
    const gradient = (id, stops, shape) => {
      const made = make(definitions, "radialGradient", { id, ...shape });
      for (const [offset, colour, opacity] of stops) {
        make(made, "stop", { offset, "stop-color": colour, "stop-opacity": opacity ?? 1 });
      }
    };
    const light = { cx: 0.36, cy: 0.29, r: 0.78 };
    gradient("blackStone", [[0, "#8d8d8d"], [0.22, "#4b4b4b"], [0.6, "#1d1d1d"], [1, "#050505"]], light);
    gradient("whiteStone", [[0, "#ffffff"], [0.5, "#f6f3ec"], [0.82, "#dcd7cb"], [1, "#aea796"]], light);
    gradient("stoneShadow", [[0.6, "#1c0f00", 0.6], [0.85, "#1c0f00", 0.25], [1, "#1c0f00", 0]], {});

    const end = size - 1;
    let lines = "";
    for (let line = 0; line < size; line++) lines += `M0 ${line}H${end}M${line} 0V${end}`;
    make(svg, "path", { class: "lines", d: lines });
    make(svg, "rect", { class: "frame", width: end, height: end });
    for (const [x, y] of hoshi(size)) make(svg, "circle", { class: "hoshi", cx: x, cy: y, r: 0.12 });
    const kind = size < 12 ? "coordinates large" : "coordinates";
    const names = make(svg, "g", { class: kind, "aria-hidden": "true" });
    for (let line = 0; line < size; line++) {
      for (const side of [-0.86, end + 0.86]) {
        make(names, "text", { x: line, y: side }, LETTERS[line]);
        make(names, "text", { x: side, y: line }, String(size - line));
      }
    }
    this.shadows = make(svg, "g");
    this.group = make(svg, "g");
    this.marks = make(svg, "g");
  }

  // position: a Map of points to colours. fresh: whether stones that were not there come in sight
  // slowly.
  show(position, last, fresh) {
    for (const [point, stone] of this.stones) {
      if (position.get(point) === stone.colour) continue;
      stone.circle.remove();
      stone.shadow.remove();
      this.stones.delete(point);
    }
    for (const [point, colour] of position) {
      if (!this.stones.has(point)) this.stones.set(point, this.put(point, colour, fresh));
    }
    this.marks.replaceChildren();
    if (last && last[1] !== null) {
      const { cx, cy } = this.spot(last[1]);
      make(this.marks, "circle", { class: `mark ${last[0]}`, "data-point": last[1], cx, cy, r: 0.22 });
    }
  }

  put(point, colour, fresh) {
    const { cx, cy } = this.spot(point);
    const shadow = make(this.shadows, "circle", {
      cx: cx + 0.05, cy: cy + 0.09, r: 0.54, fill: "url(#stoneShadow)",
    });
    const circle = make(this.group, "circle", {
      class: fresh ? `stone ${colour} new` : `stone ${colour}`,
      "data-point": point, cx, cy, r: 0.475, fill: `url(#${colour}Stone)`,
    });
    return { colour, circle, shadow };
  }

  // Stones lie where a hand has put them: nearly on the point, always the same.
  spot(point) {
    const [x, y] = this.place(point);
    const noise = (seed) => {
      const value = Math.sin(x * 12.9898 + y * 78.233 + seed) * 43758.5453;
      return (value - Math.floor(value) - 0.5) * 0.05;
    };
    return { cx: (x + noise(1)).toFixed(3) * 1, cy: (y + noise(2)).toFixed(3) * 1 };
  }

  describe(title, position) {
    this.title.textContent = title;
    const points = (colour) =>
      [...position].filter(([, stone]) => stone === colour).map(([point]) => point)
        .sort((a, b) => a[0].localeCompare(b[0]) || a.slice(1) - b.slice(1)).join(", ") || "none";
    this.text.textContent = `Black stones: ${points("black")}. White stones: ${points("white")}.`;
  }
}

function hoshi(size) {
  if (size < 7) return size === 5 ? [[2, 2]] : [];
  const edge = size < 12 ? 2 : 3;
  const lines = [edge, size - 1 - edge];
  const middle = (size - 1) / 2;
  const points = lines.flatMap((x) => lines.map((y) => [x, y]));
  if (size % 2) {
    points.push([middle, middle]);
    if (size >= 15) for (const line of lines) points.push([line, middle], [middle, line]);
  }
  return points;
}

// A game.

class Game {
  constructor(name) {
    this.name = name;
    this.state = null;
    this.shown = 0;
    this.following = true;
    this.position = new Map();
    this.board = new Board(byId("board"));
    byId("gameName").textContent = name;
    const path = encodeURIComponent(name);
    byId("record").setAttribute("href", `/sgf/${path}.sgf`);
    byId("record").setAttribute("download", `${name}.sgf`);
    document.title = `Go: ${name}`;
    byId("first").onclick = () => this.look(0);
    byId("back").onclick = () => this.look(this.shown - 1);
    byId("forward").onclick = () => this.look(this.shown + 1);
    byId("last").onclick = () => this.look(Infinity);
    byId("live").onclick = () => this.follow();
    byId("slider").oninput = (event) => this.look(Number(event.target.value));
    document.addEventListener("keydown", (event) => this.key(event));
    this.connection = new Connection(
      `/events/${path}`, (event) => this.take(event), () => this.missing());
  }

  missing() {
    if (!this.state) {
      byId("missing").hidden = false;
      byId("missingText").textContent = `There is no game “${this.name}” on this server.`;
    }
    say("lost", "No such game");
  }

  // What happens. False: it does not fit to what is known.

  take(event) {
    if (event.kind === "snapshot") {
      this.restore(event);
      return true;
    }
    if (!this.state) return false;
    const { moves } = this.state;
    if (event.kind === "moved") {
      if (event.number !== moves.length + 1) return false;
      moves.push([event.colour, event.point, event.captured]);
      this.state.turn = other(event.colour);
      this.list(moves.length);
    } else if (event.kind === "resigned") {
      this.resigned = event.colour;
    } else if (event.kind === "over") {
      this.state.result = event.result;
    } else if (event.kind === "came") {
      this.state.players[event.colour] = event.by;
    }
    this.look(this.following ? Infinity : this.shown, event.kind === "moved");
    return true;
  }

  restore(state) {
    const old = this.state;
    const { moves } = state;
    const same = old && old.size === state.size && old.moves.length <= moves.length
      && old.moves.every((move, index) => move[0] === moves[index][0] && move[1] === moves[index][1]);
    this.state = state;
    this.board.draw(state.size);
    if (!same) {
      this.shown = 0;
      this.following = true;
      this.position = new Map();
      byId("moves").replaceChildren();
    }
    for (let number = byId("moves").children.length + 1; number <= moves.length; number++) {
      this.list(number);
    }
    byId("missing").hidden = true;
    byId("view").hidden = false;
    byId("rules").textContent = `${state.size}×${state.size}, komi ${state.komi}`;
    this.look(this.following ? Infinity : this.shown);
  }

  list(number) {
    const move = this.state.moves[number - 1];
    const item = make(byId("moves"), "li");
    // One of them can be reached by the tab key, the others from there by arrows.
    const button = make(item, "button", { type: "button", tabindex: number === 1 ? 0 : -1 });
    button.setAttribute("aria-label", `Move ${number}: ${moveInWords(move)}`);
    make(button, "span", { class: "number" }, `${number}`);
    make(button, "i", { class: `stone ${move[0]}` });
    make(button, "span", {}, move[1] ?? "pass");
    if (move[2].length) make(button, "span", { class: "taken" }, `×${move[2].length}`);
    button.onclick = () => this.look(number);
  }

  // Where one looks.

  follow() {
    this.following = true;
    this.look(Infinity);
  }

  look(number, fresh = false) {
    if (!this.state) return;
    const { moves } = this.state;
    const wanted = Math.max(0, Math.min(number, moves.length));
    while (this.shown < wanted) {
      const [colour, point, captured] = moves[this.shown++];
      if (point !== null) this.position.set(point, colour);
      for (const taken of captured) this.position.delete(taken);
    }
    while (this.shown > wanted) {
      const [colour, point, captured] = moves[--this.shown];
      if (point !== null) this.position.delete(point);
      for (const taken of captured) this.position.set(taken, other(colour));
    }
    this.following = wanted === moves.length;
    this.show(fresh);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const list = byId("moves");
    const inList = list.contains(event.target);
    const steps = {
      ArrowLeft: this.shown - 1, ArrowRight: this.shown + 1, Home: 0, End: Infinity,
      PageUp: this.shown - 10, PageDown: this.shown + 10,
      ...(inList && { ArrowUp: this.shown - 2, ArrowDown: this.shown + 2 }),
    };
    if (event.key.toLowerCase() === "l") this.follow();
    // The slider has these keys already.
    else if (event.key in steps && event.target.id !== "slider") this.look(steps[event.key]);
    else return;
    if (event.target.id !== "slider") event.preventDefault();
    if (inList) list.querySelector("[tabindex='0']").focus({ preventScroll: true });
  }

  show(fresh) {
    const { moves, result, players } = this.state;
    const number = this.shown;
    const atEnd = number === moves.length;
    const last = number ? moves[number - 1] : null;
    this.board.show(this.position, last, fresh);
    const where = number ? `after move ${number} of ${moves.length}` : "before the first move";
    this.board.describe(`Board, ${this.board.size} by ${this.board.size}, ${where}.`, this.position);

    let status = last ? `Move ${number}: ${moveInWords(last)}` : "The board is empty";
    if (atEnd && result !== null) status = `${last ? `${status}. ` : ""}${inWords(result)}`;
    if (byId("status").textContent !== status) byId("status").textContent = status;
    byId("result").hidden = result === null;
    byId("result").textContent = result === null ? "" : inWords(result);

    const turn = last ? other(last[0]) : "black";
    for (const colour of SIDES) {
      const taken = moves.slice(0, number)
        .reduce((sum, move) => sum + (move[0] === colour ? move[2].length : 0), 0);
      const box = byId(colour);
      box.classList.toggle("toPlay", turn === colour && !(atEnd && result !== null));
      box.querySelector("bdi").textContent = players[colour] ?? "nobody yet";
      box.querySelector(".about").textContent = `${NAMES[colour]}, ${plural(taken, "capture")}`;
    }

    const slider = byId("slider");
    slider.max = moves.length;
    slider.value = number;
    slider.setAttribute("aria-valuetext", last
      ? `Move ${number} of ${moves.length}: ${moveInWords(last)}` : `Start, of ${moves.length} moves`);
    // Who has stepped to an end keeps the focus: the button is not taken from under the finger.
    for (const [id, useless] of [["first", !number], ["back", !number], ["forward", atEnd], ["last", atEnd]]) {
      byId(id).setAttribute("aria-disabled", String(useless));
    }
    const live = byId("live");
    live.setAttribute("aria-pressed", String(this.following));
    live.textContent = this.following ? "Live" : `Live (${moves.length - number} more)`;
    byId("count").textContent = moves.length ? `${number} of ${moves.length}` : "";
    this.showCurrent(number);
  }

  showCurrent(number) {
    const list = byId("moves");
    const before = list.querySelector("[aria-current]");
    if (before) before.removeAttribute("aria-current");
    const reachable = list.querySelector("[tabindex='0']");
    if (reachable) reachable.setAttribute("tabindex", "-1");
    const item = list.children[number - 1];
    if (!item) {
      if (list.firstChild) list.firstChild.firstChild.setAttribute("tabindex", "0");
      list.scrollTop = 0;
      return;
    }
    item.firstChild.setAttribute("tabindex", "0");
    item.firstChild.setAttribute("aria-current", "true");
    // The list scrolls, not the page.
    const top = item.offsetTop - list.offsetTop;
    if (top < list.scrollTop + 8 || top + item.offsetHeight > list.scrollTop + list.clientHeight - 8) {
      list.scrollTop = top - list.clientHeight / 2;
    }
  }
}

// Which page this is: /game/NAME or /#NAME shows a game, / the list.

function begin() {
  const path = location.pathname.match(/^\/game\/([^/]+)$/);
  const name = path ? path[1] : location.hash.slice(1);
  window.addEventListener("hashchange", () => location.reload());
  let decoded;
  try {
    decoded = decodeURIComponent(name);
  } catch {
    decoded = name;
  }
  if (decoded) new Game(decoded);
  else new List();
}

begin();
