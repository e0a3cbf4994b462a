// What every page shares: the theme switch, dialogs, copying, confirmations, relative times, and words for failed requests.

const THEMES = ["system", "light", "dark"];

function readTheme() {
  return document.documentElement.dataset.theme ?? "system";
}

function chooseTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("atelier-theme");
    else localStorage.setItem("atelier-theme", theme);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  document.dispatchEvent(new CustomEvent("atelier:theme", { detail: theme }));
}

export function toast(text, tone = "") {
  const box = document.createElement("div");
  box.className = `callout${tone ? ` callout--${tone}` : ""}`;
  const words = document.createElement("div");
  words.textContent = text;
  box.append(words);
  document.getElementById("toasts")?.append(box);
  setTimeout(() => box.remove(), tone === "bad" ? 12000 : 5000);
}

for (const button of document.querySelectorAll("[data-theme-switch]")) button.hidden = false;

document.addEventListener("click", async (event) => {
  const target = event.target.closest?.("[data-theme-switch], [data-dialog], [data-close], [data-copy]");
  if (!target) return;
  if (target.matches("[data-theme-switch]")) {
    const next = THEMES[(THEMES.indexOf(readTheme()) + 1) % THEMES.length];
    chooseTheme(next);
    toast(next === "system" ? "Colours follow the system." : `Colours are ${next}.`);
  } else if (target.matches("[data-dialog]")) {
    const dialog = document.getElementById(target.dataset.dialog);
    if (dialog) {
      event.preventDefault();
      dialog.showModal();
    }
  } else if (target.matches("[data-close]")) {
    target.closest("dialog")?.close();
  } else if (target.matches("[data-copy]")) {
    try {
      await navigator.clipboard.writeText(target.dataset.copy);
      toast("Copied.", "ok");
    } catch {
      toast("The browser did not allow copying. Select the text and copy it by hand.", "warn");
    }
  }
});

// A click on the backdrop closes a dialog, as everywhere else; but not one with data-stays, which comes up by itself under somebody's finger.
document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLDialogElement && event.target.open && !("stays" in event.target.dataset)) {
    const box = event.target.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!inside) event.target.close();
  }
});

// A form with data-confirm asks first, in a dialog that names what is destroyed. Without JavaScript it posts at once.
function askFirst(form, submitter) {
  const dialog = document.createElement("dialog");
  const head = document.createElement("div");
  head.className = "dialog__head";
  const title = document.createElement("h2");
  title.textContent = form.dataset.confirmTitle ?? "Are you sure?";
  title.id = "confirm-title";
  head.append(title);
  const body = document.createElement("div");
  body.className = "dialog__body";
  const words = document.createElement("p");
  words.textContent = form.dataset.confirm;
  body.append(words);
  const foot = document.createElement("div");
  foot.className = "dialog__foot";
  const no = document.createElement("button");
  no.className = "btn";
  no.textContent = "Keep it as it is";
  const yes = document.createElement("button");
  yes.className = "btn btn--danger";
  yes.textContent = form.dataset.confirmLabel ?? submitter?.textContent?.trim() ?? "Go on";
  foot.append(no, yes);
  dialog.setAttribute("aria-labelledby", "confirm-title");
  dialog.append(head, body, foot);
  document.body.append(dialog);
  no.addEventListener("click", () => dialog.close());
  yes.addEventListener("click", () => {
    form.dataset.confirmed = "yes";
    dialog.close();
    form.requestSubmit(submitter ?? undefined);
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    submitter?.focus();
  });
  dialog.showModal();
  no.focus();
}

document.addEventListener(
  "submit",
  (event) => {
    const form = event.target;
    if (!form.dataset?.confirm) return;
    if (form.dataset.confirmed) {
      delete form.dataset.confirmed;
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
    askFirst(form, event.submitter);
  },
  true,
);

// A second press while the answer is on its way would send the form again. What the browser brings back from its memory may be sent once more.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method") === "dialog") return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 5000);
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// A table that is wider than its place, or longer, is scrolled by keyboard too: where nothing in it takes the focus, it does itself.
function offerScrolling(box) {
  const overflows = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
  if (overflows === box.hasAttribute("tabindex")) return;
  box.toggleAttribute("tabindex", overflows);
  if (!overflows) {
    for (const name of ["role", "aria-label"]) box.removeAttribute(name);
    return;
  }
  const heading = box.closest("section, .panel, main")?.querySelector("h1, h2, h3")?.textContent.trim();
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", heading ? `${heading}: a table that scrolls` : "A table that scrolls");
}
const tables = new ResizeObserver((entries) => {
  // What was taken out of the page is told of once more, and has no place to scroll in.
  for (const box of new Set(entries.map(({ target }) => target.closest(".table-wrap")))) if (box?.isConnected) offerScrolling(box);
});
function watchTables(root) {
  for (const box of root.querySelectorAll(".table-wrap")) {
    offerScrolling(box);
    tables.observe(box);
    if (box.firstElementChild) tables.observe(box.firstElementChild);
  }
}
watchTables(document);

// What polls is replaced as a whole: how far its tables are scrolled, what is unfolded and where the focus is stay as they were.
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
let kept = null;

// What an element leads to, or does. By its place alone it could be another rater's button, where a row came or went above.
function nameOf(element) {
  return [element.localName, element.id, element.getAttribute("href"), element.form?.getAttribute("action"), element.getAttribute("name"),
    element.getAttribute("value"), element.dataset.dialog].join("\n");
}

function findFocus(target, { name, nth, place, all }) {
  const now = [...target.querySelectorAll(FOCUSABLE)];
  const same = now.filter((element) => nameOf(element) === name);
  if (same.length) return same[Math.min(nth, same.length - 1)];
  // Where all else is as it was, an address that changed is still the same link. What is gone leaves the focus where it was.
  if (now.length === all && now[place].localName === "a" && name.startsWith("a\n")) return now[place];
  target.tabIndex = -1;
  return target;
}

function readFocus(target) {
  const all = [...target.querySelectorAll(FOCUSABLE)];
  const place = all.indexOf(document.activeElement);
  if (place < 0) return null;
  const name = nameOf(all[place]);
  return { name, place, nth: all.slice(0, place).filter((element) => nameOf(element) === name).length, all: all.length };
}

document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { target } = detail;
  kept = null;
  // An open dialog gives the focus back to what opened it, and sends the form that asked: they stay until it is closed. The next turn comes anyway.
  const dialog = document.querySelector("dialog[open]");
  if (dialog && !dialog.contains(target) && target.matches("[hx-trigger*='every']")) {
    detail.shouldSwap = false;
    return;
  }
  if (!target.id) return;
  kept = {
    id: target.id,
    scrolled: [...target.querySelectorAll(".table-wrap, .tree-wrap, .log")].map((box) => [box.scrollLeft, box.scrollTop]),
    unfolded: [...target.querySelectorAll("details")].map((box) => box.open),
    focus: readFocus(target),
  };
});
document.addEventListener("htmx:afterSwap", () => {
  const target = kept && document.getElementById(kept.id);
  if (!target) return;
  watchTables(target);
  [...target.querySelectorAll("details")].forEach((box, index) => { if (kept.unfolded[index]) box.open = true; });
  [...target.querySelectorAll(".table-wrap, .tree-wrap, .log")].forEach((box, index) => box.scrollTo(...(kept.scrolled[index] ?? [0, 0])));
  if (kept.focus) findFocus(target, kept.focus).focus({ preventScroll: true });
  kept = null;
});

// htmx keeps silent about failures; a person should not have to guess.
document.addEventListener("htmx:responseError", (event) => {
  const status = event.detail.xhr.status;
  const silent = event.detail.elt?.closest?.("[data-quiet]");
  if (silent) return;
  if (status === 401 || status === 403) toast("You are signed out, or this is not yours to do. Reload the page and sign in.", "bad");
  else if (status === 404) toast("That no longer exists. Reload the page.", "warn");
  else if (status === 409) toast("Somebody else was faster. Reload the page to see the new state.", "warn");
  else toast("The server could not do that. Try again in a moment.", "bad");
});
document.addEventListener("htmx:sendError", (event) => {
  if (!event.detail.elt?.closest?.("[data-quiet], [hx-trigger*='every']")) toast("The server cannot be reached. Check the connection.", "bad");
});

// <time datetime=... data-relative> says how long ago; its title keeps the exact moment.
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function refreshTimes(root) {
  for (const time of root.querySelectorAll?.("time[data-relative]") ?? []) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const seconds = (moment - Date.now()) / 1000;
    const [unit, size] = UNITS.find(([, s]) => Math.abs(seconds) >= s) ?? UNITS[3];
    time.title = moment.toLocaleString();
    time.textContent = relative.format(Math.round(seconds / size), unit);
  }
}
refreshTimes(document);
setInterval(() => refreshTimes(document), 20000);
document.addEventListener("htmx:afterSettle", (event) => refreshTimes(event.target));
