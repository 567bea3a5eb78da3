// Local times, countdowns, dialogs, copy buttons, confirmations, and parts of a page that reload on a timer.
"use strict";

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function localise(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    element.textContent = clock.format(moment);
    element.title = `${exact.format(moment)} (${element.dateTime})`;
  }
}

// Filters by time are sent in UTC and shown in the browser's time zone, like the times in the list.
function localTime(moment) {
  return new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

function localiseFilters() {
  for (const zone of document.querySelectorAll("[data-zone]")) zone.textContent = "local time";
  for (const field of document.querySelectorAll("input[data-utc]")) {
    // The value in the document: a browser may have restored another one.
    field.value = field.defaultValue && localTime(new Date(`${field.defaultValue}Z`));
    field.form.addEventListener("formdata", (event) => {
      if (field.value) event.formData.set(field.name, `${new Date(field.value).toISOString().slice(0, 19)}Z`);
    });
  }
}

function countDown() {
  for (const element of document.querySelectorAll("[data-until], [data-left]")) {
    // `data-left` is in seconds, because the clock of the browser's computer may be wrong.
    element.deadline ??= element.dataset.left ? Date.now() + element.dataset.left * 1000 : new Date(element.dataset.until);
    const left = Math.max(0, Math.ceil((element.deadline - Date.now()) / 1000));
    const minutes = Math.floor(left / 60);
    element.textContent = left < 3600
      ? `${minutes}:${String(left % 60).padStart(2, "0")}`
      : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    if (left === 0 && !element.dataset.over) {
      element.dataset.over = "yes";
      element.dispatchEvent(new CustomEvent("over", { bubbles: true }));
    }
  }
}

// A list of check boxes with a search field. Checked ones stay visible, so that no choice is hidden.
function filterPicks(field) {
  const wanted = field.value.trim().toLowerCase();
  for (const label of field.parentNode.querySelectorAll(".picks label")) {
    label.hidden = !label.textContent.toLowerCase().includes(wanted) && !label.querySelector("input").checked;
  }
}

function offerFilters(root) {
  for (const field of root.querySelectorAll("input[data-filters-picks]")) field.hidden = false;
}

document.addEventListener("input", (event) => {
  if (event.target.matches("[data-filters-picks]")) filterPicks(event.target);
});

document.addEventListener("keydown", (event) => {
  // Enter in the search field must not submit the form around it.
  if (event.key === "Enter" && event.target.matches("[data-filters-picks]")) event.preventDefault();
});

function openDialogs(root) {
  for (const dialog of root.querySelectorAll("dialog[data-opens]")) {
    if (!dialog.open) dialog.showModal();
  }
}

function closeDialog(dialog) {
  dialog.close();
  dialog.remove();
}

document.addEventListener("click", (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const field = document.getElementById(copy.dataset.copy);
    field.select();
    navigator.clipboard.writeText(field.value).then(() => { copy.textContent = "Copied"; }, () => document.execCommand("copy"));
  }
  if (event.target.closest("[data-closes]")) {
    event.preventDefault();
    closeDialog(event.target.closest("dialog"));
  }
  const all = event.target.closest("[data-selects]");
  if (all) {
    for (const box of document.querySelectorAll(`input[name="${all.dataset.selects}"]`)) box.checked = all.checked;
  }
  const remove = event.target.closest("[data-removes]");
  if (remove) remove.closest(remove.dataset.removes).remove();
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm || event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
}, true);

document.addEventListener("cancel", (event) => {
  if (event.target.matches("dialog[data-opens]")) closeDialog(event.target);
}, true);

document.addEventListener("htmx:load", (event) => {
  localise(event.target);
  offerFilters(event.target);
  openDialogs(event.target.parentNode || document);
  countDown();
});

// A region with `data-live` reloads on a timer. It waits while the tab is hidden, a pointer button is down, or text in it
// is selected.
let pointerDown = false;
for (const [name, value] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]]) {
  document.addEventListener(name, () => { pointerDown = value; }, true);
}

function mustWait(region) {
  const selection = document.getSelection();
  return document.hidden || pointerDown || (selection.type === "Range" && region.contains(selection.anchorNode));
}

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches("[data-live]") && mustWait(event.target)) event.preventDefault();
});

document.addEventListener("htmx:beforeSwap", (event) => {
  const region = event.detail.target;
  if (!region.matches("[data-live]") || event.detail.elt !== region) return;
  if (event.detail.xhr.status !== 200 || mustWait(region)) event.detail.shouldSwap = false;
});

document.addEventListener("htmx:afterRequest", (event) => {
  if (event.target.matches("[data-live]")) event.target.classList.toggle("stale", ![200, 204].includes(event.detail.xhr.status));
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const region of document.querySelectorAll("[data-live]")) htmx.trigger(region, "look");
});

// Browsers keep the session cookie only over TLS and on localhost (`admin/cookies.py`).
for (const notice of document.querySelectorAll("[data-insecure]")) notice.hidden = window.isSecureContext;

localise(document);
localiseFilters();
offerFilters(document);
openDialogs(document);
countDown();
setInterval(countDown, 500);
