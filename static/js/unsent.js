// Judgments that a rating screen left in this browser are sent from any page: the screen may be closed to whoever made them, its campaign over.
import { createHistory } from "./rate/history.js";
import { createOutbox } from "./rate/outbox.js";
import { PATIENCE, readAnswer } from "./rate/server.js";
import { createBrowserStore, createTabLock } from "./rate/storage.js";
import { forgetAll, forgetOthers } from "./rate/traces.js";

const place = document.getElementById("unsent");
const token = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];

async function send(judgments) {
  const response = await fetch(place.dataset.url, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": token() },
    body: JSON.stringify({ judgments }),
    signal: AbortSignal.timeout(PATIENCE),
  });
  return readAnswer(response, await response.json().catch(() => null));
}

function build(tone, words, buttons = []) {
  const box = document.createElement("div");
  box.className = `callout callout--${tone}`;
  const text = document.createElement("div");
  text.append(Object.assign(document.createElement("p"), { textContent: words }));
  box.append(text);
  for (const [label, press] of buttons) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "btn btn--sm", textContent: label });
    button.addEventListener("click", press);
    box.append(button);
  }
  return box;
}

const count = (number) => (number === 1 ? "One judgment" : `${number} judgments`);

function show({ waiting, rejected, problem }) {
  const boxes = rejected.map((row) => build("warn", `${row.about ? `${row.about}: a` : "A"} judgment was not accepted. ${row.reason}`, [
    ["Send it again", () => outbox.resend(row.id)],
    ["I have read it", () => outbox.dismiss(row.id)],
  ]));
  if (waiting) {
    const why = problem === "no-role" ? "kept in this browser: this account may not rate now. An operator can give it the role back." : problem === "signed-out" ? "not taken from this account now, and kept in this browser." : problem ? "kept in this browser and sent as soon as the server can be reached." : "on the way to the server.";
    boxes.unshift(build(problem ? "warn" : "info", `${count(waiting)} of before ${waiting === 1 ? "is" : "are"} ${why}`));
  }
  place.replaceChildren(...boxes);
}

const user = place?.dataset.user;
const store = createBrowserStore();

/** What was judged here can be undone by who did it, and is not for the next person at this device. Unsent judgments stay: they are work. */
async function signOut(event) {
  event.preventDefault();
  await Promise.race([forgetAll({ store }), new Promise((done) => setTimeout(done, 1000))]);
  event.target.submit();
}

if (place && globalThis.indexedDB) for (const form of document.querySelectorAll('form[action$="/logout/"]')) form.addEventListener("submit", signOut);

const outbox = place && globalThis.indexedDB // The rating screen has no such place: it sends by itself.
  ? createOutbox({
      user,
      store,
      send,
      lock: createTabLock(`atelier-outbox-${user}`),
      onChange: () => show(outbox.snapshot()),
      onSettled(row, result) {
        if (result.status === "rejected") createHistory({ user, store }).remove(row.judgment); // It cannot be undone.
      },
    })
  : null;
if (outbox) {
  addEventListener("online", () => outbox.retry());
  forgetOthers({ user, store }).catch(() => {}); // Without storage there is nothing of theirs.
  await outbox.open();
  if (outbox.snapshot().waiting) await outbox.flush();
}
