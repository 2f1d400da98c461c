// The game. A bay is an actor, one for each room: its state is what the page draws,
//
//   { "phase": "playing", "secondsLeft": 17, "round": 1, "watching": 2, "winners": [],
//     "players": { "Ann": { "color": 0, "score": 3, "x": 2000, "y": 600 } },
//     "pearls": [{ "x": 1200, "y": 900, "worth": 1 }] }
//
// its methods are `join`, `leave`, `start` and `steer`, and of its events the page listens to
// `collected`. While a round runs, a patch comes every 16 ms.

import { element, make, showError, showMissing } from "./page.js";

/** The size of the bay, in its own units. */
const WIDTH = 4_000;
const HEIGHT = 3_000;
const BOAT = 130;
const PEARL = 76;
/** The vector that asks for full speed. */
const FULL_HELM = 100;
/** How often to tell the host where to, at most. */
const STEER_MS = 40;
/** How near the finger the boat need not go on. */
const THERE = 70;
/** How fast what is shown follows what is so: boats glide, whatever the network does. */
const GLIDE_MS = 35;
/** How long a wake and a `+3` are seen. */
const WAKE_MS = 450;
const POP_MS = 900;
/** How long to wait for the own boat, which a connection that was lost may still hold. */
const NAME_HELD_MS = 30_000;
const NAME_RETRY_MS = 500;

const DIRECTIONS = {
  ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0],
  KeyW: [0, -1], KeyS: [0, 1], KeyA: [-1, 0], KeyD: [1, 0],
};

const canvas = element("arena");
const prefersStill = matchMedia("(prefers-reduced-motion: reduce)");

/** The bay that the page shows. */
let bay = null;

/** Shows the bay of a room over this connection, and joins it if the tab plays there. */
export function enter(connection, id) {
  const entered = {
    connection,
    id,
    state: null,
    /** The phase of the state that was shown last. */
    phase: "lobby",
    /** The name under which this connection plays. */
    name: null,
    /** What is seen of each player: where the boat is by now, and its wake. */
    boats: new Map(),
    pops: [],
    helm: { wanted: [0, 0], sent: [0, 0], timer: null },
  };
  bay = entered;
  element("player").value = storedName() ?? sessionStorage.getItem("tidegate.name") ?? "";
  showError("game", "");
  drawAll();
  connection.watchState("game", id, (state) => show(entered, state), refused);
  connection.watchEvents("game", id, (event, { name, pearl }) => {
    if (event === "collected" && !prefersStill.matches) {
      entered.pops.push({ ...pearl, color: entered.state?.players[name]?.color, at: performance.now() });
    }
  });
  connection.addEventListener("status", () => {
    if (bay !== entered) {
      return;
    }
    // To the host, a connection that came back is another one, without a boat.
    entered.name = null;
    drawAll();
    if (connection.status === "connected" && storedName()) {
      rejoin(entered);
    }
  });
}

function call(method, input) {
  return bay.connection.call("game", bay.id, method, input);
}

function refused(failure) {
  const isMissing = failure.code === "actor.unknown";
  showMissing("game", isMissing);
  showError("game", isMissing ? "" : failure.message);
}

/** Does what a button is for, and says what the game has against it. */
async function attempt(action) {
  try {
    await action();
    showError("game", "");
  } catch (failure) {
    refused(failure);
  }
}

// Playing along. The name is the tab's, so that two tabs are two players.

const nameKey = () => `tidegate.player.${bay.id}`;
const storedName = () => sessionStorage.getItem(nameKey());

element("play-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = element("player").value.trim();
  attempt(async () => {
    await call("join", { name });
    joined(name);
  });
});

element("start").addEventListener("click", () => attempt(async () => {
  await call("start");
  canvas.scrollIntoView({ block: "nearest" });
}));

element("leave").addEventListener("click", () => {
  sessionStorage.removeItem(nameKey());
  attempt(async () => {
    await call("leave");
    bay.name = null;
    drawAll();
  });
});

async function rejoin(entered) {
  const { connection, id } = entered;
  const name = storedName();
  const session = connection.id;
  const until = Date.now() + NAME_HELD_MS;
  while (bay === entered && connection.id === session && connection.status === "connected") {
    try {
      await connection.call("game", id, "join", { name });
      return joined(name);
    } catch (failure) {
      if (failure.code !== "game.name-taken" || Date.now() > until) {
        return failure.code === "client.lost" ? undefined : refused(failure);
      }
      await new Promise((resolve) => setTimeout(resolve, NAME_RETRY_MS));
    }
  }
}

function joined(name) {
  bay.name = name;
  sessionStorage.setItem(nameKey(), name);
  drawAll();
}

// Steering: with keys, or towards a finger that is held on the water.

const pressed = new Set();
let finger = null;

/** From the countdown on: whoever has a direction by then sails off at once. */
const isSteering = () => bay?.name && bay.phase !== "lobby";

function isWriting(target) {
  return target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement;
}

document.addEventListener("keydown", (event) => {
  const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (event.code in DIRECTIONS && isPlain && isSteering() && !isWriting(event.target)) {
    event.preventDefault();
    pressed.add(event.code);
    steerByKeys();
  }
});

document.addEventListener("keyup", (event) => {
  if (pressed.delete(event.code)) {
    steerByKeys();
  }
});

window.addEventListener("blur", letGo);

canvas.addEventListener("pointerdown", (event) => {
  if (isSteering() && event.isPrimary) {
    canvas.setPointerCapture(event.pointerId);
    finger = placeOf(event);
    steerByFinger();
  }
});

canvas.addEventListener("pointermove", (event) => {
  if (finger && event.isPrimary) {
    finger = placeOf(event);
    steerByFinger();
  }
});

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (finger && event.isPrimary) {
      letGo();
    }
  });
}

function placeOf(event) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return {
    x: ((event.clientX - left) / width) * WIDTH,
    y: ((event.clientY - top) / height) * HEIGHT,
  };
}

function steerByKeys() {
  const directions = [...pressed].map((code) => DIRECTIONS[code]);
  const sum = (axis) => directions.reduce((total, direction) => total + direction[axis], 0);
  steer(Math.sign(sum(0)) * FULL_HELM, Math.sign(sum(1)) * FULL_HELM);
}

/** Also while the finger rests, since the boat moves. */
function steerByFinger() {
  const own = bay.state.players[bay.name];
  if (!own) {
    return;
  }
  const [x, y] = [finger.x - own.x, finger.y - own.y];
  const distance = Math.hypot(x, y);
  // In steps: the same direction again is not sent again.
  const scaled = (part) => Math.round(((part / distance) * FULL_HELM) / 5) * 5;
  steer(...(distance < THERE ? [0, 0] : [scaled(x), scaled(y)]));
}

function letGo() {
  pressed.clear();
  finger = null;
  if (isSteering()) {
    steer(0, 0);
  }
}

function steer(dx, dy) {
  bay.helm.wanted = [dx, dy];
  if (bay.helm.timer === null) {
    sendHelm(bay);
  }
}

function sendHelm(steered) {
  const { connection, id, helm } = steered;
  const [dx, dy] = helm.wanted;
  helm.timer = null;
  if (dx === helm.sent[0] && dy === helm.sent[1]) {
    return;
  }
  helm.sent = helm.wanted;
  helm.timer = setTimeout(() => sendHelm(steered), STEER_MS);
  // What a boat that is gone was to do, nobody misses.
  connection.call("game", id, "steer", { dx, dy }).catch(() => {});
}

// What has changed.

function show(shown, state) {
  if (shown !== bay) {
    return;
  }
  showMissing("game", false);
  shown.state = state;
  // The state changes in place: only a copy knows what it was.
  if (shown.phase !== "lobby" && state.phase === "lobby") {
    // The host has stopped all boats.
    pressed.clear();
    finger = null;
    shown.helm.wanted = shown.helm.sent = [0, 0];
  }
  shown.phase = state.phase;
  drawAll();
}

/** Draws what is not in the arena, where it is not drawn already, and asks for a frame. */
function drawAll() {
  drawPlayers();
  drawControls();
  drawTexts();
  askForFrame();
}

/** Sets a text that 60 patches a second would otherwise set as often. */
function setText(id, text) {
  if (element(id).textContent !== text) {
    element(id).textContent = text;
  }
}

let drawnPlayers = "";

function drawPlayers() {
  const players = Object.entries(bay.state?.players ?? {})
    .map(([name, { color, score, absentSince }]) => ({ name, color, score, isAway: absentSince !== undefined }))
    .sort((a, b) => b.score - a.score || a.color - b.color);
  const signature = JSON.stringify([players, bay.name]);
  if (signature === drawnPlayers) {
    return;
  }
  drawnPlayers = signature;
  element("players").replaceChildren(...players.map(({ name, color, score, isAway }) => {
    const shown = make("li", isAway ? "away" : "");
    const swatch = make("span", "swatch");
    swatch.style.background = `var(--boat-${color})`;
    const who = make("span", "who", name === bay.name ? `${name} (you)` : name);
    shown.append(swatch, who, make("span", "score", isAway ? "away" : String(score)));
    return shown;
  }));
  element("no-players").hidden = players.length > 0;
}

function drawControls() {
  const phase = bay.state?.phase;
  element("play-form").hidden = bay.name !== null || bay.connection.status !== "connected";
  element("play-controls").hidden = bay.name === null;
  element("start").hidden = phase !== "lobby";
  // A finger scrolls the page, unless it steers.
  canvas.dataset.steering = String(Boolean(isSteering()));
  setText("start", bay.state?.round > 0 ? "Play again" : "Start");
}

function drawTexts() {
  const { phase, secondsLeft, watching = 0 } = bay.state ?? {};
  setText("watching", watching > 1 ? `${watching} here now` : "");
  setText("time", phase === "playing" ? `${secondsLeft} s` : "");
  element("banner").classList.toggle("large", phase === "countdown");
  setText("banner", bannerText());
}

function bannerText() {
  if (!bay.state) {
    return "";
  }
  const { phase, secondsLeft, round, winners, players } = bay.state;
  if (phase === "playing") {
    return "";
  }
  if (phase === "countdown") {
    return String(Math.max(1, secondsLeft));
  }
  if (winners.length > 0) {
    const names = new Intl.ListFormat("en").format(winners);
    const score = players[winners[0]]?.score;
    const how = score === undefined ? "" : ` with ${score}`;
    return `${names} ${winners.length === 1 ? "wins" : "win"}${how}!`;
  }
  return round > 0 ? "Nobody took a pearl." : "";
}

// The arena, drawn only while something in it moves.

const brush = canvas.getContext("2d");
let frame = null;
let lastFrameAt = 0;
let movedAt = 0;
let palette = null;

new ResizeObserver(askForFrame).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  palette = null;
  askForFrame();
});

function askForFrame() {
  frame ??= requestAnimationFrame(drawFrame);
}

function readPalette() {
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    boats: Array.from({ length: 8 }, (_, n) => color(`boat-${n}`)),
    wave: color("wave"),
    text: color("text"),
    pearl: color("pearl"),
    golden: color("golden"),
    rim: color("pearl-rim"),
    font: style.fontFamily,
  };
}

function drawFrame(now) {
  frame = null;
  const elapsed = Math.min(100, now - lastFrameAt);
  lastFrameAt = now;
  palette ??= readPalette();
  const { clientWidth, clientHeight } = canvas;
  if (clientWidth === 0) {
    return;
  }
  const [width, height] = [clientWidth, clientHeight].map((size) => Math.round(size * devicePixelRatio));
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
  }
  brush.setTransform(width / WIDTH, 0, 0, height / HEIGHT, 0, 0);
  brush.clearRect(0, 0, WIDTH, HEIGHT);
  drawWaves();
  if (!bay.state) {
    return;
  }
  moveBoats(now, elapsed);
  bay.state.pearls.forEach(drawPearl);
  for (const boat of bay.boats.values()) {
    drawWake(boat, now);
  }
  for (const [name, boat] of bay.boats) {
    drawBoat(name, boat);
  }
  bay.pops = bay.pops.filter(({ at }) => now - at < POP_MS);
  bay.pops.forEach((pop) => drawPop(pop, now));
  if (finger && isSteering()) {
    steerByFinger();
  }
  if (bay.pops.length > 0 || finger || now - movedAt < WAKE_MS) {
    askForFrame();
  }
}

/** Lets what is shown glide to where the boats are. */
function moveBoats(now, elapsed) {
  const share = 1 - Math.exp(-elapsed / GLIDE_MS);
  const { players, phase } = bay.state;
  for (const name of bay.boats.keys()) {
    if (!Object.hasOwn(players, name)) {
      bay.boats.delete(name);
    }
  }
  for (const [name, { x, y, color, absentSince }] of Object.entries(players)) {
    let boat = bay.boats.get(name);
    // Farther than boats sail: put somewhere else.
    if (!boat || Math.hypot(x - boat.x, y - boat.y) > 700) {
      boat = { x, y, heading: headingOf(x, y), wake: [] };
      bay.boats.set(name, boat);
    }
    Object.assign(boat, { color, isAway: absentSince !== undefined });
    const [dx, dy] = [x - boat.x, y - boat.y];
    if (Math.hypot(dx, dy) > 1) {
      movedAt = now;
      boat.x += dx * share;
      boat.y += dy * share;
      boat.heading = turned(boat.heading, Math.atan2(dy, dx), share);
      if (phase === "playing" && !prefersStill.matches) {
        boat.wake.push({ x: boat.x, y: boat.y, at: now });
      }
    }
    while (boat.wake.length > 0 && now - boat.wake[0].at > WAKE_MS) {
      boat.wake.shift();
    }
  }
}

/** Moored boats look to the middle. */
function headingOf(x, y) {
  return Math.atan2(HEIGHT / 2 - y, WIDTH / 2 - x);
}

/** The heading after a part of the shorter way round. */
function turned(from, to, share) {
  const difference = Math.atan2(Math.sin(to - from), Math.cos(to - from));
  return from + difference * share;
}

function drawWaves() {
  brush.strokeStyle = palette.wave;
  brush.lineWidth = 14;
  brush.lineCap = "round";
  for (let row = 0; row < 6; row += 1) {
    for (let column = 0; column < 5; column += 1) {
      const x = 300 + column * 800 + (row % 2) * 400;
      const y = 260 + row * 500;
      brush.beginPath();
      brush.moveTo(x - 90, y);
      brush.quadraticCurveTo(x - 45, y - 50, x, y);
      brush.quadraticCurveTo(x + 45, y + 50, x + 90, y);
      brush.stroke();
    }
  }
}

function drawPearl({ x, y, worth }) {
  const isGolden = worth > 1;
  const radius = isGolden ? PEARL * 1.3 : PEARL;
  brush.beginPath();
  brush.arc(x, y, radius, 0, 2 * Math.PI);
  brush.fillStyle = isGolden ? palette.golden : palette.pearl;
  brush.fill();
  brush.strokeStyle = palette.rim;
  brush.lineWidth = 12;
  brush.stroke();
  brush.beginPath();
  brush.arc(x - radius * 0.3, y - radius * 0.35, radius * 0.22, 0, 2 * Math.PI);
  brush.fillStyle = "#ffffff";
  brush.fill();
}

function drawWake({ wake, color }, now) {
  brush.fillStyle = palette.boats[color];
  for (const { x, y, at } of wake) {
    const age = (now - at) / WAKE_MS;
    brush.globalAlpha = 0.16 * (1 - age);
    brush.beginPath();
    brush.arc(x, y, BOAT * (0.75 - 0.5 * age), 0, 2 * Math.PI);
    brush.fill();
  }
  brush.globalAlpha = 1;
}

function drawBoat(name, { x, y, heading, color, isAway }) {
  brush.globalAlpha = isAway ? 0.35 : 1;
  brush.save();
  brush.translate(x, y);
  brush.rotate(heading);
  brush.beginPath();
  brush.moveTo(BOAT * 1.25, 0);
  brush.quadraticCurveTo(BOAT * 0.5, BOAT * 0.8, -BOAT * 0.9, BOAT * 0.55);
  brush.quadraticCurveTo(-BOAT * 1.1, 0, -BOAT * 0.9, -BOAT * 0.55);
  brush.quadraticCurveTo(BOAT * 0.5, -BOAT * 0.8, BOAT * 1.25, 0);
  brush.fillStyle = palette.boats[color];
  brush.fill();
  if (name === bay.name) {
    brush.strokeStyle = palette.text;
    brush.lineWidth = 20;
    brush.stroke();
  }
  brush.beginPath();
  brush.arc(-BOAT * 0.15, 0, BOAT * 0.26, 0, 2 * Math.PI);
  brush.fillStyle = "rgb(255 255 255 / 85%)";
  brush.fill();
  brush.restore();
  write(name, x, y < 400 ? y + BOAT + textSize(14) : y - BOAT - textSize(6), 12, palette.text);
  brush.globalAlpha = 1;
}

function drawPop({ x, y, worth, color, at }, now) {
  const age = (now - at) / POP_MS;
  brush.globalAlpha = 1 - age * age;
  write(`+${worth}`, x, y - age * 220, worth > 1 ? 22 : 17, palette.boats[color] ?? palette.text);
  brush.globalAlpha = 1;
}

/** So many pixels on the screen, in units of the bay. */
function textSize(pixels) {
  return (pixels * WIDTH) / canvas.clientWidth;
}

/** Writes centred on this place, or beside it where the edge would cut the text off. */
function write(text, x, y, pixels, color) {
  brush.font = `600 ${textSize(pixels)}px ${palette.font}`;
  brush.textAlign = "center";
  brush.fillStyle = color;
  const half = brush.measureText(text).width / 2;
  brush.fillText(text, Math.max(half, Math.min(WIDTH - half, x)), y);
}
