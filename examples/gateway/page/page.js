// SPDX-License-Identifier: MIT
// The page: it lists, uploads, shows, downloads and deletes a patient's documents by the gateway's
// interface. The patient's id is in the address after "#", which browsers do not send.
"use strict";

const MAX_BYTES = 25 * 1024 * 1024;
const SHOWN = ["application/pdf", "image/png", "image/jpeg"];

const find = (id) => document.getElementById(id);

// Make an element. `properties` are its own, except for `data` and `children`.
function make(name, properties = {}) {
  const { data, children, ...rest } = properties;
  const element = Object.assign(document.createElement(name), rest);
  Object.assign(element.dataset, data);
  element.append(...(children || []));
  return element;
}

// What went wrong, in plain words -------------------------------------------------------------------

const WORDS = {
  bad_request: "The service did not understand the request.",
  canceled: "Canceled. If the list has this file, it was stored before that.",
  cross_site: "The gateway expects another address of this page. Ask its operator.",
  forbidden: "The service refused: the gateway may not do this. Ask its operator.",
  internal: "The gateway has failed. Ask its operator.",
  network: "The service cannot be reached. Try again later.",
  not_found: "There is no such document. It may have been deleted meanwhile.",
  not_signed_in: "You are no longer signed in. Sign in, then try again.",
  quota: "This month's requests are used up. Ask the gateway's operator.",
  server: "The service has a problem. Try again later.",
  throttled: "The service is busy. Try again in a minute.",
  timeout: "This took too long. Try again later.",
  too_large: "The file is larger than 25 MB, and was not stored.",
  unsupported_type: "Only PDF, PNG, JPEG, TIFF and DOCX files can be stored.",
  wrong_password: "User or password is wrong.",
  offline: "The gateway cannot be reached. Check your connection, then try again.",
};

// Failures after which another attempt cannot help.
const FINAL = ["bad_request", "cross_site", "forbidden", "not_found", "quota", "too_large", "unsupported_type"];

function explain(problem) {
  if (problem.kind === "unsupported_type" && problem.reason === "signature") {
    return "The content is not that of a PDF, PNG, JPEG, TIFF or DOCX file, or the file's name says another type.";
  }
  if (problem.kind === "unsupported_type" && problem.reason === "empty") return "The file is empty.";
  if (problem.retry_after > 60 && problem.kind !== "quota") {
    return `The service is busy. Try again in ${Math.ceil(problem.retry_after / 60)} minutes.`;
  }
  return WORDS[problem.kind] || `Something went wrong (${problem.kind}). Try again later.`;
}

// Requests ------------------------------------------------------------------------------------------

function parseProblem(text) {
  try {
    const problem = JSON.parse(text);
    if (typeof problem.kind === "string") return problem;
  } catch { /* not the gateway's */ }
  return { kind: "internal" };
}

// Returns the response. Throws a problem.
async function request(path, options) {
  let response, text;
  try {
    response = await fetch(path, options);
    if (response.ok) return response;
    text = await response.text();
  } catch {
    throw { kind: "offline", outcome_unknown: options?.method === "DELETE" };
  }
  const problem = parseProblem(text);
  if (problem.kind === "not_signed_in") showSignIn();
  throw problem;
}

function documentsPath(patient) {
  return `/patients/${encodeURIComponent(patient)}/documents`;
}

// Signing in ----------------------------------------------------------------------------------------

const signIn = find("sign-in");

function showSignIn() {
  find("user").hidden = true;
  find("patient").hidden = find("documents").hidden = true;
  find("view").close();
  find("question").close();
  signIn.hidden = false;
  signIn.elements.user.focus();
}

function showSignedIn(user) {
  const before = find("user-name").textContent;
  if (before && before !== user) return location.reload(); // they must not see each other's uploads
  signIn.reset();
  signIn.hidden = true;
  find("sign-in-problem").textContent = "";
  find("user-name").textContent = user;
  find("user").hidden = find("patient").hidden = false;
  showPatient();
}

signIn.addEventListener("submit", async (event) => {
  event.preventDefault();
  const user = signIn.elements.user.value;
  find("sign-in-problem").textContent = "";
  try {
    await request("/login", { method: "POST", body: new URLSearchParams(new FormData(signIn)) });
    showSignedIn(user);
  } catch (problem) {
    find("sign-in-problem").textContent = explain(problem);
    signIn.elements.password.select();
  }
});

find("sign-out").addEventListener("click", async () => {
  try {
    await request("/session", { method: "DELETE" });
  } catch (problem) {
    return say(explain(problem));
  }
  history.replaceState(null, "", "/"); // the next user does not see the patient's id
  location.reload();
});

// The list ------------------------------------------------------------------------------------------

let patient = "";
let documents = [];
let latest = 0; // number of the latest request for the list: answers to earlier ones are ignored
let loading = false;

function say(text) {
  find("status").textContent = text;
}

function sizeText(bytes) {
  if (typeof bytes !== "number") return "";
  if (bytes < 1000) return `${bytes} bytes`;
  const units = bytes < 999500 ? [1000, "KB", 0] : [1000000, "MB", 1];
  return (bytes / units[0]).toLocaleString(undefined, { maximumFractionDigits: units[2] }) + " " + units[1];
}

// The day of a document, as a date input has it, in the reader's time zone.
function dayOf(item) {
  const date = new Date(item.uploaded_at);
  if (isNaN(date)) return "";
  return [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((n) => String(n).padStart(2, "0")).join("-");
}

function timeText(item) {
  const date = new Date(item.uploaded_at);
  return isNaN(date) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

const mediaOf = (item) => String(item.content_type).toLowerCase().replace(/;.*/, "").trim();
const nameOf = (item) => item.file_name || "document without a name";
const contentPath = (item) => `${documentsPath(patient)}/${encodeURIComponent(item.id)}/content`;

// A button or link of a row: for screen readers it names the document.
function action(name, text, item, properties) {
  const hidden = make("span", { className: "visually-hidden", textContent: " " + nameOf(item) });
  return make(name, { ...properties, children: [text, hidden] });
}

function rowOf(item) {
  const actions = [];
  if (SHOWN.includes(mediaOf(item))) {
    actions.push(action("button", "View", item, { type: "button", onclick: () => view(item) }));
  }
  actions.push(
    action("a", "Download", item, { className: "button", href: contentPath(item), download: "" }),
    action("button", "Delete", item, { type: "button", className: "danger", onclick: () => remove(item) }),
  );
  const cell = (label, ...children) => {
    const made = make("td", { data: label ? { label } : {}, children });
    made.setAttribute("role", "cell");
    return made;
  };
  const name = [nameOf(item)];
  if (item.description) name.push(make("small", { textContent: item.description }));
  const row = make("tr", {
    data: { id: item.id },
    children: [cell("", ...name), cell("Type", item.document_type || "–"), cell("Uploaded", timeText(item)),
      cell("Size", sizeText(item.file_size_bytes)), cell("", ...actions)],
  });
  row.setAttribute("role", "row");
  return row;
}

function fillTypes() {
  const types = [...new Set(documents.map((item) => item.document_type).filter(Boolean))].sort();
  const select = find("filter").elements.type;
  const chosen = select.value;
  select.replaceChildren(make("option", { value: "", textContent: "all" }),
    ...types.map((type) => make("option", { value: type, textContent: type })));
  select.value = types.includes(chosen) ? chosen : "";
  find("types").replaceChildren(...types.map((type) => make("option", { value: type })));
}

function showRows() {
  const { type, from, to } = find("filter").elements;
  const rows = documents.filter((item) => (!type.value || item.document_type === type.value)
    && (!from.value || dayOf(item) >= from.value)
    && (!to.value || (dayOf(item) && dayOf(item) <= to.value)));
  find("rows").replaceChildren(...rows.map(rowOf));
  const count = documents.length === 1 ? "1 document" : `${documents.length} documents`;
  say(rows.length === documents.length ? count : `${rows.length} of ${count}`);
}

async function load() {
  const own = ++latest;
  loading = true;
  say("Loading …");
  let found, problem;
  try {
    const response = await request(documentsPath(patient) + "?orderby=uploaded_at%20desc");
    found = (await response.json()).documents; // fails if the list was cut off
  } catch (failure) {
    problem = failure.kind ? failure : { kind: "offline" };
  }
  if (own !== latest) return;
  loading = false;
  if (problem) return say(explain(problem));
  documents = found;
  fillTypes();
  showRows();
}

// A document that was just uploaded: this saves a request for the list.
function addDocument(item) {
  if (loading) return load(); // that answer may not have it
  documents.unshift(item);
  fillTypes();
  showRows();
  say(`${nameOf(item)} is stored. ${find("status").textContent}`);
}

function patientInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // not written by this page
  }
}

// Show the patient in the page's address. Nothing of another one may stay, except for uploads.
function showPatient() {
  const next = patientInAddress();
  if (next !== patient) {
    find("upload").reset();
    find("filter").reset();
    for (const item of find("uploads").querySelectorAll(".stored")) item.remove();
  }
  patient = next;
  find("view").close();
  find("question").close();
  find("patient").elements.id.value = patient;
  find("documents").hidden = !patient;
  documents = [];
  find("rows").replaceChildren();
  if (!patient) return find("patient").elements.id.focus();
  find("documents-title").textContent = `Patient ${patient}`;
  find("documents-title").focus();
  load();
}

find("patient").addEventListener("submit", (event) => {
  event.preventDefault();
  const hash = "#" + encodeURIComponent(find("patient").elements.id.value.trim());
  if (hash === location.hash) showPatient();
  else location.hash = hash;
});
addEventListener("hashchange", () => signIn.hidden && showPatient());
find("filter").addEventListener("submit", (event) => event.preventDefault());
find("filter").addEventListener("change", showRows);
find("filter-reset").addEventListener("click", () => {
  find("filter").reset();
  showRows();
});

// Uploads, one after the other ----------------------------------------------------------------------

const queue = [];
let uploading = false;

function addFiles(files) {
  const { document_type, description } = find("upload").elements;
  for (const file of files) enqueue({ file, patient, type: document_type.value, description: description.value });
}

function enqueue(upload) {
  upload.item = make("li");
  find("uploads").append(upload.item);
  if (upload.file.size > MAX_BYTES) return showFailure(upload, { kind: "too_large" });
  showUpload(upload, make("p", { textContent: "Waiting" }));
  queue.push(upload);
  uploadNext();
}

async function uploadNext() {
  if (uploading || queue.length === 0) return;
  uploading = true;
  const upload = queue.shift();
  try {
    const stored = await send(upload);
    showUpload(upload, make("p", { textContent: "Stored" }));
    upload.item.className = "stored";
    if (upload.patient === patient) addDocument(stored);
  } catch (problem) {
    showFailure(upload, problem);
  }
  uploading = false;
  uploadNext();
}

function showUpload(upload, ...what) {
  const name = [make("strong", { textContent: upload.file.name }), ` for ${upload.patient}`];
  upload.item.replaceChildren(make("span", { children: name }), ...what);
}

function uploadButton(upload, text, onclick) {
  return make("button", { type: "button", textContent: text, ariaLabel: `${text} ${upload.file.name}`, onclick });
}

function showFailure(upload, problem) {
  const button = (text, onclick) => uploadButton(upload, text, onclick);
  const show = (text, ...buttons) => {
    showUpload(upload, make("p", { textContent: text, className: "problem", role: "alert" }), ...buttons);
  };
  const again = () => {
    upload.item.remove();
    enqueue(upload);
    find("files").focus();
  };
  const look = async () => {
    if (upload.patient !== patient) {
      location.hash = "#" + encodeURIComponent(upload.patient);
      return;
    }
    await load();
    find("documents-title").focus();
  };
  if (problem.outcome_unknown) {
    show("It is not known whether this file was stored. Look first: upload it again only if the list does not have it.",
      button("Look", look), button("Upload again", again));
  } else if (problem.kind === "canceled") {
    show(explain(problem), button("Look", look), button("Upload again", again));
  } else if (FINAL.includes(problem.kind)) {
    show(explain(problem));
  } else {
    show(explain(problem), button("Try again", again));
  }
}

// Send a file. Resolves to the document's metadata, or rejects with a problem.
function send(upload) {
  if (!navigator.onLine) return Promise.reject({ kind: "offline" });
  const form = new FormData();
  form.append("document_type", upload.type);
  form.append("description", upload.description);
  form.append("file", upload.file, upload.file.name); // the gateway wants the file last
  const call = new XMLHttpRequest(); // fetch() does not report progress
  const bar = make("progress", { max: 1, value: 0, ariaLabel: `Progress of ${upload.file.name}` });
  showUpload(upload, bar, uploadButton(upload, "Cancel", () => call.abort()));
  call.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) bar.value = event.loaded / event.total;
  });
  return new Promise((resolve, reject) => {
    call.addEventListener("load", () => {
      if (call.status === 201) return resolve(JSON.parse(call.responseText));
      const problem = parseProblem(call.responseText);
      if (problem.kind === "not_signed_in") showSignIn();
      reject(problem);
    });
    // the browser does not say for certain how much of the file was sent by then
    call.addEventListener("error", () => reject({ kind: "offline", outcome_unknown: true }));
    call.addEventListener("abort", () => reject({ kind: "canceled" }));
    call.open("POST", documentsPath(upload.patient));
    call.send(form);
  });
}

find("upload").addEventListener("submit", (event) => event.preventDefault());
find("files").addEventListener("change", (event) => {
  addFiles(event.target.files);
  event.target.value = ""; // the same file can be chosen again
});

// A file that is dropped beside the area must not replace the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
const drop = find("drop");
drop.addEventListener("dragover", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  addFiles(event.dataTransfer.files);
});

addEventListener("beforeunload", (event) => {
  if (uploading) event.preventDefault(); // the browser asks
});

// View ----------------------------------------------------------------------------------------------

const viewer = find("view");

function view(item) {
  const path = contentPath(item);
  find("view-title").textContent = nameOf(item);
  find("view-download").href = path;
  find("view-problem").textContent = "";
  const problem = (text) => { find("view-problem").textContent = text; };
  let shown;
  if (mediaOf(item) === "application/pdf") {
    shown = make("iframe", { title: nameOf(item), src: path + "?inline=1" });
    shown.addEventListener("load", () => { // of the document, or of the gateway's failure
      let inner;
      try {
        inner = shown.contentDocument;
      } catch { /* the browser's own PDF viewer */ }
      if (inner?.contentType === "application/json") {
        problem(explain(parseProblem(inner.body.textContent)));
        shown.remove();
      }
    });
  } else {
    shown = make("img", { alt: nameOf(item), src: path + "?inline=1" });
    shown.addEventListener("error", () => {
      problem("The image could not be loaded. Try again later.");
      shown.remove();
    });
  }
  find("view-content").replaceChildren(shown);
  viewer.showModal();
  find("view-close").focus();
}

find("view-close").addEventListener("click", () => viewer.close());
// ends the transfer; the browser returns the focus to the button that opened the dialog
viewer.addEventListener("close", () => find("view-content").replaceChildren());

// Delete --------------------------------------------------------------------------------------------

function ask(text) {
  const question = find("question");
  find("question-text").textContent = text;
  question.returnValue = "no";
  question.showModal();
  return new Promise((resolve) => {
    question.addEventListener("close", () => resolve(question.returnValue === "yes"), { once: true });
  });
}

async function remove(item) {
  const owner = patient, path = contentPath(item).replace(/\/content$/, "");
  if (!await ask(`“${nameOf(item)}” will be deleted for good.`)) return;
  say(`Deleting ${nameOf(item)} …`);
  let done = `${nameOf(item)} is deleted.`;
  try {
    await request(path, { method: "DELETE" });
  } catch (problem) {
    if (problem.outcome_unknown) return say("It is not known whether the document was deleted. Show the list again, and look.");
    if (problem.kind !== "not_found") return say(explain(problem));
    done = `${nameOf(item)} had already been deleted.`;
  }
  if (owner !== patient) return;
  const row = [...find("rows").children].find((candidate) => candidate.dataset.id === item.id);
  const next = row?.nextElementSibling || row?.previousElementSibling;
  documents = documents.filter((other) => other.id !== item.id);
  fillTypes();
  showRows();
  say(done);
  const after = [...find("rows").children].find((candidate) => candidate.dataset.id === next?.dataset.id);
  (after?.querySelector("button, a") || find("documents-title")).focus();
}

// Start ---------------------------------------------------------------------------------------------

(async () => {
  try {
    showSignedIn((await (await request("/session")).json()).user);
  } catch (problem) {
    showSignIn();
    if (problem.kind !== "not_signed_in") find("sign-in-problem").textContent = explain(problem);
  }
})();
