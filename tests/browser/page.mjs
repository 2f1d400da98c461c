// Looks at the example page as people do: in Chromium, with a tab for each person.
//
//   node page.mjs SCENARIO URL [SCREENSHOT_DIR]
//
// Ends with 0 when the page behaves. In `restart` it asks whoever runs it to `stop` and to
// `start` the host, a line on standard output each, and goes on when the page has noticed.
// Every wait is for a condition, with the same generous limit.

import assert from "node:assert/strict";
import { accessSync, constants, mkdirSync } from "node:fs";
import { delimiter, join } from "node:path";

const PATIENCE_MS = 20_000;
const DESKTOP = { width: 1180, height: 860 };
/** The narrowest phone that counts. */
const PHONE = { width: 360, height: 740 };

const [scenarioName, url, screenshots] = process.argv.slice(2);

/** What pages complained about; the network's own complaints excepted where connections are to fail. */
const complaints = [];
let isFailureExpected = false;

/** The last frames of each page's WebSockets, without which a wait in vain explains nothing. */
const frames = new Map();
const FRAMES_KEPT = 30;

const scenarios = {
  /** Two people meet, talk and count. */
  async talk(browser) {
    const ann = await open(browser, { viewport: DESKTOP });
    const ben = await open(browser, { viewport: DESKTOP });
    await ann.getByText("Nobody has said anything here yet.").waitFor();
    await joinAs(ann, "Ann");
    await joinAs(ben, "Ben");
    for (const [page, people] of [[ann, ["Ann (you)", "Ben"]], [ben, ["Ann", "Ben (you)"]]]) {
      for (const person of people) {
        await seesPerson(page, person);
      }
    }

    step("a name is taken once, and the page says so");
    const eve = await open(browser, { viewport: DESKTOP });
    await fillIn(eve, "Your name", "Ann");
    await eve.getByRole("alert").getByText("Ann is already here").waitFor();
    await fillIn(eve, "Your name", "Eve");
    await seesPerson(ann, "Eve");
    await eve.context().close();
    await ann.getByRole("listitem").getByText("Eve").waitFor({ state: "detached" });

    step("typing is seen, and passes");
    await ann.getByRole("textbox", { name: "Message" }).pressSequentially("Hello B");
    await ben.getByText("Ann is typing…").waitFor();
    await ben.getByText("Ann is typing…").waitFor({ state: "detached" });

    step("a message is seen with its author");
    await ann.getByRole("textbox", { name: "Message" }).pressSequentially("en!");
    await ann.keyboard.press("Enter");
    await seesMessage(ben, "Ann", "Hello Ben!");
    await say(ben, "Hi Ann. Nice tide today.\nShall we count?");
    await seesMessage(ann, "Ben", "Shall we count?");

    step("what the room refuses is said, and not lost");
    const long = "x".repeat(2_001);
    await ben.getByRole("textbox", { name: "Message" }).fill(long);
    await ben.keyboard.press("Enter");
    await ben.getByRole("alert").getByText("a message has at most 2000 characters").waitFor();
    assert.equal(await ben.getByRole("textbox", { name: "Message" }).inputValue(), long);

    step("a message is text, whatever is in it");
    const hostile = "<img src=x onerror=\"document.title='gotcha'\"><script>document.title='gotcha'</script>";
    await say(ann, hostile);
    await seesMessage(ben, "Ann", hostile);
    assert.equal(await ben.locator("img, [role=log] script").count(), 0);
    assert.equal(await ben.title(), "lobby · Tidegate");
    assert.equal(await ben.getByRole("alert").filter({ hasText: "at most" }).count(), 1);
    await say(ben, "Well tried.");
    await ben.getByRole("alert").filter({ hasText: "at most" }).waitFor({ state: "detached" });

    step("the counter is shared");
    await press(ann, "Add one", 3);
    await seesCount(ben, 3);
    await press(ben, "Subtract one", 1);
    await seesCount(ann, 2);
    await screenshot(ann, "desktop");

    step("a reload keeps the history, the name and the count");
    await ben.reload();
    await seesPerson(ben, "Ben (you)");
    await seesMessage(ben, "Ann", "Hello Ben!");
    await seesCount(ben, 2);
    await say(ben, "Back again.");
    await seesMessage(ann, "Ben", "Back again.");

    step("a name is asked for when it can be taken");
    const late = await newPage(browser, { viewport: DESKTOP });
    const connect = await holdConnection(late);
    await late.goto(url);
    await late.getByRole("status").getByText("Connecting…").waitFor();
    assert.equal(await late.getByLabel("Your name").isVisible(), false);
    connect();
    await joinAs(late, "Fay");
    await late.context().close();

    step("a second tab is another person in the same room");
    const opening = ann.context().waitForEvent("page");
    await ann.getByRole("link", { name: "Open a second tab" }).click();
    const tab = watch(await opening);
    await joinAs(tab, "Cem");
    await seesPerson(ben, "Cem");
    await tab.close();

    step("another room is another room");
    await fillIn(ann, "Room", "harbour & quay");
    await ann.getByText("Nobody has said anything here yet.").waitFor();
    await ben.getByRole("listitem").getByText("Ann", { exact: true }).waitFor({ state: "detached" });
    assert.equal(new URL(ann.url()).hash, "#harbour%20%26%20quay");
    await ann.goBack();
    await seesMessage(ann, "Ben", "Well tried.");
    await seesPerson(ben, "Ann");

    step("it fits a phone, light and dark");
    for (const colorScheme of ["light", "dark"]) {
      const phone = await open(browser, { viewport: PHONE, colorScheme, hasTouch: true });
      await assertFits(phone);
      await joinAs(phone, `Dee ${colorScheme}`);
      await say(phone, "w".repeat(200));
      await seesMessage(ann, `Dee ${colorScheme}`, "w".repeat(200));
      await assertFits(phone);
      await say(phone, "On my way, back in ten minutes.");
      await press(phone, "Add one", 1);
      await screenshot(phone, `phone-${colorScheme}`);
      await phone.context().close();
    }
    const dark = await open(browser, { viewport: DESKTOP, colorScheme: "dark" });
    await joinAs(dark, "Dora");
    await seesMessage(dark, "Ben", "Well tried.");
    await screenshot(dark, "dark");
    await dark.context().close();

    step("the keyboard suffices");
    await focusByTab(ann, "Add one");
    await ann.keyboard.press("Space");
    await seesCount(ben, 5);
  },

  /** The host stops and starts again; the pages come back by themselves. */
  async restart(browser) {
    const ann = await open(browser, { viewport: DESKTOP });
    const ben = await open(browser, { viewport: DESKTOP });
    await joinAs(ann, "Ann");
    await joinAs(ben, "Ben");
    await say(ann, "Before");
    await seesMessage(ben, "Ann", "Before");

    step("the pages notice");
    isFailureExpected = true;
    console.log("stop");
    for (const page of [ann, ben]) {
      await page.getByRole("status").getByText("Reconnecting…").waitFor();
    }
    await ann.getByRole("textbox", { name: "Message" }).fill("Into the void");
    await ann.keyboard.press("Enter");
    await ann.getByRole("alert").getByText("There is no connection to the host").waitFor();
    assert.equal(
      await ann.getByRole("textbox", { name: "Message" }).inputValue(),
      "Into the void",
    );
    await ann.getByText("The host does not answer.").waitFor();
    await screenshot(ann, "reconnecting");

    step("they come back by themselves, and join again");
    console.log("start");
    for (const page of [ann, ben]) {
      await page.getByRole("status").getByText("Connected").waitFor();
      await seesPerson(page, page === ann ? "Ann (you)" : "Ben (you)");
    }
    isFailureExpected = false;
    await seesPerson(ann, "Ben");
    await seesPerson(ben, "Ann");
    await ann.getByRole("textbox", { name: "Message" }).press("Enter");
    await seesMessage(ben, "Ann", "Into the void");
    await press(ben, "Add one", 1);
    await seesCount(ben, 1);
    await seesCount(ann, 1);
  },

  /** Two people play, one with keys, one with a finger. */
  async game(browser) {
    const ann = await newPage(browser, { viewport: DESKTOP });
    await shortenRounds(ann);
    await ann.goto(url);
    const ben = await open(browser, { viewport: PHONE, hasTouch: true, isMobile: true });
    await ann.getByText("Nobody plays yet.").waitFor();
    await fillIn(ann, "Player name", "Ann");
    await seesPlayer(ann, "Ann (you)");

    step("a name is taken once, and the page says so");
    await fillIn(ben, "Player name", "Ann");
    await ben.getByRole("alert").getByText("Ann is already playing").waitFor();
    await fillIn(ben, "Player name", "Ben");
    await seesPlayer(ann, "Ben");
    await seesPlayer(ben, "Ann");

    step("a countdown is seen by all");
    const moored = await seesBoat(ben, 0);
    await ann.getByRole("button", { name: "Start" }).click();
    for (const page of [ann, ben]) {
      await page.locator("#banner").getByText(/^[123]$/).waitFor();
    }
    await screenshot(ann, "game-countdown");
    await ben.locator("#time").getByText(/^\d+ s$/).waitFor();

    step("a boat that one steers moves on the other's screen");
    await ann.keyboard.down("ArrowDown");
    await seesBoat(ben, 0, ({ y }) => y > moored.y + 0.2);
    await ann.keyboard.up("ArrowDown");
    await ann.keyboard.down("ArrowRight");
    await seesBoat(ben, 0, ({ x }) => x > moored.x + 0.1);
    await ann.keyboard.up("ArrowRight");

    step("a finger leads to a pearl, and it counts");
    await ben.locator("#arena").scrollIntoViewIfNeeded();
    const finger = await fingerOn(ben);
    const scored = ben.locator("#players li").filter({ hasText: "Ben (you)" }).getByText(/^[1-9]/);
    await finger.down(await bayState());
    const until = Date.now() + PATIENCE_MS;
    while (!(await scored.isVisible())) {
      assert.ok(Date.now() < until, "Ben takes no pearl");
      await finger.move(await bayState());
    }
    for (const page of [ann, ben]) {
      await assertFits(page);
    }
    await screenshot(ann, "game-desktop");
    await screenshot(ben, "game-phone");
    await finger.up();
    await ben.emulateMedia({ colorScheme: "dark" });
    await screenshot(ben, "game-phone-dark");

    step("the round ends by itself, and somebody has won");
    for (const page of [ann, ben]) {
      await page.locator("#banner").getByText(/ wins? with \d+!$/).waitFor();
      await page.getByRole("button", { name: "Play again" }).waitFor();
    }
    await screenshot(ben, "game-won");

    step("a reload keeps the boat and its points");
    const row = ben.locator("#players li").filter({ hasText: "Ben (you)" });
    const points = await row.innerText();
    await ben.reload();
    await seesPlayer(ben, "Ben (you)");
    assert.equal(await row.innerText(), points);

    step("who leaves is gone");
    await ann.getByRole("button", { name: "Leave" }).click();
    await ben.locator("#players").getByText("Ann", { exact: true }).waitFor({ state: "detached" });
    await ann.getByLabel("Player name", { exact: true }).waitFor();
  },

  /** Two people look at an agent, whose model whoever runs this plays. */
  async agent(browser) {
    const ann = await open(browser, { viewport: DESKTOP });
    const ben = await open(browser, { viewport: PHONE, hasTouch: true });
    await ann.getByText("Nobody has asked anything here yet.").waitFor();

    step("a prompt in one tab, and the answer grows in both");
    await ask(ann, "Which way?");
    console.log("begin");
    for (const page of [ann, ben]) {
      await hears(page, "Prompt", "Which way?");
      await hears(page, "Agent", "With the ");
      await page.locator("#agent-status").getByText("Answering…").waitFor();
    }
    await screenshot(ann, "agent-answering");
    console.log("go on");
    for (const page of [ann, ben]) {
      await hears(page, "Agent", "With the tide, Ann 🌊.");
      await page.locator("#agent-status").waitFor({ state: "hidden" });
    }

    step("whoever asked stops the answer, nobody else");
    await ask(ben, "And then?");
    console.log("begin");
    await hears(ann, "Agent", "Against");
    assert.equal(await ann.getByRole("button", { name: "Stop" }).isVisible(), false);
    await ben.getByRole("button", { name: "Stop" }).click();
    console.log("wait");
    for (const page of [ann, ben]) {
      await page.locator("#agent-status").getByText("Stopped").waitFor();
      await hears(page, "Agent", "Against");
    }
    assert.equal(await ben.locator("#agent-error").innerText(), "");

    step("tools are seen");
    await ask(ann, "What is six times seven?");
    console.log("begin");
    for (const page of [ann, ben]) {
      await hears(page, "calculator", "42");
      await hears(page, "Agent", "It is 42.");
    }

    step("a provider that fails is said to, and what it said stays");
    await ask(ben, "Sure?");
    console.log("begin");
    for (const page of [ann, ben]) {
      await page.getByRole("alert").getByText("the answer broke off").waitFor();
      await page.locator("#agent-status").getByText("Failed").waitFor();
      await hears(page, "Agent", "Quite");
      await assertFits(page);
    }
    await screenshot(ann, "agent-desktop");
    await screenshot(ben, "agent-phone");
    await ben.emulateMedia({ colorScheme: "dark" });
    await screenshot(ben, "agent-phone-dark");

    step("a reload shows the same, and who clears it clears it for all");
    await ben.reload();
    await hears(ben, "Agent", "It is 42.");
    await ben.getByRole("button", { name: "Clear" }).click();
    for (const page of [ann, ben]) {
      await page.getByText("Nobody has asked anything here yet.").waitFor();
      assert.equal(await page.locator("#agent-error").innerText(), "");
    }

    step("what is too long is said, and not lost");
    const long = "x".repeat(8_001);
    await ask(ann, long);
    await ann.getByRole("alert").getByText("a prompt has at most 8000 characters").waitFor();
    assert.equal(await ann.getByRole("textbox", { name: "Prompt" }).inputValue(), long);
  },

  /** An agent without a provider says so. */
  async scripted(browser) {
    const ann = await open(browser, { viewport: DESKTOP });
    const ben = await open(browser, { viewport: PHONE, hasTouch: true });
    await ask(ann, "Which way?");
    const lengths = new Set();
    const answer = ben.locator("#conversation .message.assistant .text");
    await answer.waitFor();
    await ben.locator("#agent-status").getByText("Answering…").waitFor();
    await screenshot(ben, "agent-scripted");
    while (await ben.locator("#agent-status").isVisible()) {
      lengths.add((await answer.textContent()).length);
    }
    assert.ok(lengths.size > 5, `it grew in ${lengths.size} steps`);
    for (const page of [ann, ben]) {
      await hears(page, "Agent", "No provider is configured, so this is a scripted reply");
      await hears(page, "Agent", "start the host again.");
    }
    await screenshot(ann, "agent-scripted-desktop");
  },

  /** A page's own code offers subprotocols, and a token among them. */
  async subprotocols(browser) {
    const token = `tidegate.token.${process.env.TIDEGATE_TOKEN}`;
    const page = await newPage(browser, { viewport: DESKTOP });
    // Of the host's own origin, with no code of its own.
    await page.goto(new URL("/_page/icon.svg", url).href);
    const connect = (offer) =>
      page.evaluate(
        (offer) =>
          new Promise((resolve) => {
            const socket = new WebSocket(`ws://${location.host}/ws`, offer);
            socket.onmessage = ({ data }) => {
              const { type } = JSON.parse(data);
              resolve(`${type} ${socket.protocol}`);
              socket.close();
            };
            socket.onerror = () => resolve("failed");
          }),
        offer,
      );
    step("ours is selected, else the first that is offered");
    assert.equal(await connect(["chat.example", "tidegate", token]), "welcome tidegate");
    assert.equal(await connect([token, "chat.example", "other"]), "welcome chat.example");
    step("without a token there is no connection");
    isFailureExpected = true;
    assert.equal(await connect(["tidegate"]), "failed");
    assert.equal(await connect(["tidegate", `${token}x`]), "failed");
  },

  /** A host that serves no chat says how to get it. */
  async missing(browser) {
    const page = await open(browser, { viewport: PHONE });
    await page.getByText("This host does not serve chat.").waitFor();
    await page.getByText("cargo xtask up").first().waitFor();
    await press(page, "Add one", 1);
    await seesCount(page, 1);
    assert.equal(await page.getByLabel("Your name").isVisible(), false);
    assert.equal(await page.locator("#counter-missing").isVisible(), false);
    await screenshot(page, "missing");
  },
};

// What people do.

async function newPage(browser, options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  return watch(await context.newPage());
}

async function open(browser, options) {
  const page = await newPage(browser, options);
  await page.goto(url);
  await page.getByRole("status").getByText("Connected").waitFor();
  return page;
}

async function fillIn(page, label, text) {
  const field = page.getByLabel(label, { exact: true });
  await field.fill(text);
  await field.press("Enter");
}

async function joinAs(page, name) {
  await fillIn(page, "Your name", name);
  await seesPerson(page, `${name} (you)`);
}

async function say(page, text) {
  const box = page.getByRole("textbox", { name: "Message" });
  await box.fill(text);
  await box.press("Enter");
}

async function ask(page, text) {
  const box = page.getByRole("textbox", { name: "Prompt" });
  await box.fill(text);
  await box.press("Enter");
}

async function press(page, name, times) {
  for (let n = 0; n < times; n += 1) {
    await page.getByRole("button", { name }).click();
  }
}

/** Goes through the page with the Tab key until this button has the focus. */
async function focusByTab(page, name) {
  await page.evaluate(() => document.activeElement?.blur());
  for (let n = 0; n < 30; n += 1) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => document.activeElement.getAttribute("aria-label"));
    if (focused === name) {
      return;
    }
  }
  assert.fail(`Tab does not lead to \`${name}\``);
}

// What they see.

async function seesPerson(page, name) {
  await page.getByRole("listitem").getByText(name, { exact: true }).waitFor();
}

async function seesPlayer(page, name) {
  await page.locator("#players").getByText(name, { exact: true }).waitFor();
}

/**
 * Waits until the boat of a color is where it is wanted, and says where that is, in parts of
 * the arena. What it looks at are the pixels.
 */
async function seesBoat(page, color, isWanted = () => true) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const place = await page.evaluate((name) => {
      const canvas = document.getElementById("arena");
      const { width, height } = canvas;
      const wanted = getComputedStyle(canvas).getPropertyValue(name).trim();
      const [red, green, blue] = [1, 3, 5].map((at) => parseInt(wanted.slice(at, at + 2), 16));
      const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const { data } = copy.getImageData(0, 0, width, height);
      let [sumX, sumY, count] = [0, 0, 0];
      for (let at = 0; at < data.length; at += 4) {
        if (data[at] === red && data[at + 1] === green && data[at + 2] === blue) {
          sumX += (at / 4) % width;
          sumY += Math.floor(at / 4 / width);
          count += 1;
        }
      }
      return count > 0 ? { x: sumX / count / width, y: sumY / count / height } : null;
    }, `--boat-${color}`);
    if (place && isWanted(place)) {
      return place;
    }
    assert.ok(Date.now() < until, `the boat is at ${JSON.stringify(place)}`);
  }
}

async function seesMessage(page, author, text) {
  const messages = page.getByRole("log").locator(".message");
  await messages.filter({ has: page.getByText(author, { exact: true }) }).filter({ hasText: text }).waitFor();
}

async function hears(page, author, text) {
  const messages = page.locator("#conversation .message");
  await messages.filter({ has: page.getByText(author, { exact: true }) }).filter({ hasText: text }).waitFor();
}

async function seesCount(page, count) {
  await page.locator("#count").getByText(String(count), { exact: true }).waitFor();
}

async function assertFits(page) {
  const { content, screen } = await page.evaluate(() => ({
    content: document.documentElement.scrollWidth,
    screen: document.documentElement.clientWidth,
  }));
  assert.ok(content <= screen, `the page is ${content} px wide on a screen of ${screen} px`);
}

// Around it.

/** Collects what the page complains about, also of its policy, and what it says to the host. */
function watch(page) {
  const kept = [];
  frames.set(page, kept);
  const keep = (direction, payload) => {
    kept.push(`${new Date().toISOString()} ${direction} ${String(payload).slice(0, 300)}`);
    kept.splice(0, kept.length - FRAMES_KEPT);
  };
  page.on("websocket", (socket) => {
    keep("opens", socket.url());
    socket.on("framesent", ({ payload }) => keep("->", payload));
    socket.on("framereceived", ({ payload }) => keep("<-", payload));
    socket.on("close", () => keep("closes", socket.url()));
  });
  page.on("console", (message) => {
    const isNetwork = isFailureExpected && message.text().includes("WebSocket connection");
    // What browsers look for where a document names no icon.
    const isIcon = message.location().url.endsWith("/favicon.ico");
    if (["error", "warning"].includes(message.type()) && !isNetwork && !isIcon) {
      complaints.push(`${message.type()}: ${message.text()}`);
    }
  });
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.stack}`));
  page.on("requestfailed", (request) => complaints.push(`not loaded: ${request.url()}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) {
      complaints.push(`a request to elsewhere: ${request.url()}`);
    }
  });
  return page;
}

/** Has the rounds that this page starts last so short that a test can wait for their end. */
async function shortenRounds(page) {
  await page.routeWebSocket(/\/ws\?/, (socket) => {
    const host = socket.connectToServer();
    socket.onMessage((message) => {
      const frame = JSON.parse(message);
      const isStart = frame.method === "start";
      host.send(isStart ? JSON.stringify({ ...frame, input: { seconds: 12 } }) : message);
    });
  });
}

/** The state of the game as the host tells it to anybody. */
async function bayState() {
  const response = await fetch(new URL("/actors/game/lobby/state", url));
  return (await response.json()).state;
}

/** A finger that is held on the pearl nearest to Ben's boat. */
async function fingerOn(page) {
  const session = await page.context().newCDPSession(page);
  const { x: left, y: top, width, height } = await page.locator("#arena").boundingBox();
  const touch = (type, touchPoints) => session.send("Input.dispatchTouchEvent", { type, touchPoints });
  const at = ({ players, pearls }) => {
    const distance = ({ x, y }) => Math.hypot(x - players.Ben.x, y - players.Ben.y);
    const [nearest] = pearls.sort((a, b) => distance(a) - distance(b));
    assert.ok(nearest, "the round is over");
    return [{ x: left + (nearest.x / 4000) * width, y: top + (nearest.y / 3000) * height }];
  };
  return {
    down: (state) => touch("touchStart", at(state)),
    move: (state) => touch("touchMove", at(state)),
    up: () => touch("touchEnd", []),
  };
}

/** Keeps what the host says from the page until the function that this returns is called. */
async function holdConnection(page) {
  let release;
  const released = new Promise((resolve) => {
    release = resolve;
  });
  await page.routeWebSocket(/\/ws\?/, (socket) => {
    const host = socket.connectToServer();
    host.onMessage((message) => released.then(() => socket.send(message)));
  });
  return release;
}

function step(text) {
  console.log(`- ${text}`);
}

async function screenshot(page, name) {
  if (screenshots) {
    mkdirSync(screenshots, { recursive: true });
    await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
  }
}

function chromiumPath() {
  if (process.env.CHROMIUM) {
    return process.env.CHROMIUM;
  }
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(folder, "chromium");
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here.
    }
  }
  throw new Error("there is no `chromium` in PATH; install it, or name it in CHROMIUM");
}

const { chromium } = await import("playwright-core");
const scenario = scenarios[scenarioName];
assert.ok(scenario && url, `node page.mjs ${Object.keys(scenarios).join("|")} URL [SCREENSHOT_DIR]`);
const browser = await chromium.launch({
  executablePath: chromiumPath(),
  // Chromium's own sandbox does not work for root.
  chromiumSandbox: process.getuid() !== 0,
});
try {
  await scenario(browser);
  assert.deepEqual(complaints, [], "the console was not silent");
} catch (error) {
  for (const context of browser.contexts()) {
    for (const [index, page] of context.pages().entries()) {
      const name = `failed-${browser.contexts().indexOf(context)}-${index}`;
      console.error(`${name} shows\n${await page.locator("body").ariaSnapshot()}`);
      console.error(`and its last frames were\n${frames.get(page)?.join("\n")}`);
      await screenshot(page, name);
    }
  }
  console.error(`complaints: ${JSON.stringify(complaints, null, 2)}`);
  throw error;
} finally {
  await browser.close();
}
