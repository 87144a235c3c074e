-- SPDX-License-Identifier: MIT
-- The page of examples/gateway in a real browser. spec/run has a stage for it.
local browser = require "webdriver"
local gateway = require "gateway"
local helper = require "helper"

local PATIENT = "p-1024"
local PDF = gateway.root .. "/spec/fixtures/referral.pdf"
local PNG = gateway.root .. "/spec/fixtures/insurance-card.png"

local function stored()
  return helper.stored(PATIENT)
end

local function add(name, fields)
  local path = gateway.root .. "/spec/fixtures/" .. name
  return helper.add_document({
    patient = PATIENT, file_name = name, content_type = helper.fixtures[name],
    content_base64 = helper.output("base64 -w0 " .. helper.quote(path)),
  }, fields)
end

local function clean()
  helper.admin("DELETE", "faults")
  for _, found in ipairs(stored()) do helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(PATIENT, found.id)) end
  helper.admin("DELETE", "journal")
end

describe("the gateway's page #browser #gateway", function()
  if not browser.is_installed() then return pending "chromium and chromium-driver are not installed" end

  local server, page, url

  -- The text of an element, as it is shown.
  local function text_of(selector)
    return page:run("return document.querySelector(arguments[0])?.innerText", selector)
  end

  local function wait_for_text(selector, text)
    return page:wait(("return [...document.querySelectorAll('%s')].some(e => e.innerText.includes(arguments[0]))"):format(selector), text)
  end

  local function names()
    return page:run [[
      return [...document.querySelectorAll("#rows td:first-child")].map(td => td.firstChild.textContent).join(" ")]]
  end

  local function sign_in(user)
    page:fill("[name=user]", user)
    page:fill("[name=password]", server.password)
    page:click "#sign-in button"
  end

  -- Show the patient's documents, signed in.
  local function show(patient)
    page:open(url .. "/blank") -- a new page, even if only the part behind "#" differs
    page:open(url .. "/#" .. (patient or PATIENT))
    page:wait "return !document.getElementById('documents').hidden || !document.getElementById('sign-in').hidden"
    if page:run "return !document.getElementById('sign-in').hidden" then sign_in "demo" end
    page:wait [[return !document.getElementById("documents").hidden && /\d document/.test(document.getElementById("status").innerText)]]
  end

  -- Click the button or link of a document.
  local function click(action, name)
    page:wait([[
      const found = [...document.querySelectorAll("#rows button, #rows a")].find(e => e.textContent === arguments[0]);
      found?.focus(); // as a click by hand does
      found?.click();
      return found !== undefined]], action .. " " .. name)
  end

  -- Call a function with another gateway instead of the usual one.
  local function with_own_gateway(fn)
    local usual, usual_url = server, url
    server = gateway.start_on_port { sandbox = helper.sandbox() }
    url = server.url
    local ran, err = pcall(fn, server)
    server:stop()
    server, url = usual, usual_url
    assert(ran, err)
  end

  setup(function()
    helper.reset()
    server = gateway.start_on_port { sandbox = helper.sandbox() }
    url = server.url
    page = browser.start()
    page:open(url)
  end)

  teardown(function()
    if page then page:stop() end
    if server then server:stop() end
  end)

  before_each(clean)

  it("asks for a login, and says if it is wrong", function()
    page:open(url)
    page:wait "return !document.getElementById('sign-in').hidden"
    assert.equal("user", page:run "return document.activeElement.name")
    page:fill("[name=user]", "demo")
    page:fill("[name=password]", "wrong")
    page:click "#sign-in button"
    wait_for_text("#sign-in-problem", "User or password is wrong.")
    page:fill("[name=password]", server.password)
    page:click "#sign-in button"
    page:wait "return document.activeElement.name === 'id'" -- the patient's
    assert.equal("demo", text_of "#user-name")
    assert.equal("", page:run "return document.cookie") -- no script can read it
  end)

  it("lists a patient's documents, the newest first", function()
    add("referral.pdf", { document_type = "Referral", uploaded_at = "2026-01-02T10:00:00Z", description = "two\nlines" })
    add("scan.tiff", { document_type = "Scan", uploaded_at = "2026-03-04T10:00:00Z" })
    add("insurance-card.png", { file_name = "<img src=x onerror=document.title=1>.png", uploaded_at = "2026-02-03T10:00:00Z" })
    show()
    assert.equal("scan.tiff <img src=x onerror=document.title=1>.png referral.pdf", names())
    assert.equal("3 documents", text_of "#status")
    assert.equal("Documents", page:run "return document.title")
    assert.equal("Patient " .. PATIENT, text_of "#documents-title")
    local row = text_of "#rows tr:last-child"
    assert.matches("two\nlines", row, 1, true)
    assert.matches("Referral", row, 1, true)
    assert.matches("Jan 2, 2026", row, 1, true)
    assert.matches("9 KB", row, 1, true)
    assert.equal(1, #helper.journal())
  end)

  it("filters them by type and date, without a request", function()
    for month = 1, 4 do
      add("referral.pdf", { file_name = month .. ".pdf", document_type = month % 2 == 0 and "even" or "odd",
                            uploaded_at = ("2026-%02d-15T12:00:00Z"):format(month) })
    end
    show()
    local function filter(field, value)
      page:run(([[
        const input = document.querySelector("#filter [name=%s]");
        input.value = arguments[0];
        input.dispatchEvent(new Event("change", { bubbles: true }))]]):format(field), value)
      return names()
    end
    assert.equal("3.pdf 1.pdf", filter("type", "odd"))
    assert.equal("2 of 4 documents", text_of "#status")
    assert.equal("3.pdf", filter("from", "2026-01-16"))
    assert.equal("4.pdf 3.pdf 2.pdf", filter("type", ""))
    assert.equal("3.pdf 2.pdf", filter("to", "2026-03-15"))
    page:click "#filter button"
    page:wait "return document.querySelectorAll('#rows tr').length === 4"
    assert.equal(1, #helper.journal())
  end)

  describe("uploading", function()
    it("sends chosen files one after the other, with type and description", function()
      show()
      page:fill("[name=document_type]", "Referral")
      page:fill("[name=description]", "from the family doctor")
      page:choose("#files", PDF, PNG)
      page:wait "return document.querySelectorAll('#rows tr').length === 2"
      assert.equal("insurance-card.png referral.pdf", names())
      local found = {}
      for _, document in ipairs(stored()) do found[document.metadata.file_name] = document end
      assert.equal(helper.sha256(PDF), found["referral.pdf"].sha256)
      assert.equal("Referral", found["referral.pdf"].metadata.document_type)
      assert.equal("from the family doctor", found["insurance-card.png"].metadata.description)
      wait_for_text("#uploads li:last-child", "Stored")
      assert.equal("insurance-card.png is stored. 2 documents", text_of "#status") -- screen readers say it
      assert.equal(1, #helper.journal "list")
    end)

    it("takes files that are dropped", function()
      show()
      page:run([[
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.pdf"));
        for (const type of ["dragover", "drop"]) {
          document.getElementById("drop").dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
        }]], helper.output("base64 -w0 " .. PDF))
      page:wait "return document.querySelectorAll('#rows tr').length === 1"
      assert.equal("dropped.pdf", names())
      assert.equal(helper.sha256(PDF), stored()[1].sha256)
    end)

    it("shows the progress, and can be canceled", function()
      show()
      helper.faults { operation = "upload", action = { during = { bytes = 1000000, how = "stall" } } }
      page:choose("#files", helper.big_file(25000000))
      page:wait "return document.querySelector('#uploads progress')?.value > 0"
      assert(page:run "return document.querySelector('#uploads progress').value < 1")
      page:click "#uploads button"
      wait_for_text("#uploads .problem", "Canceled. If the list has this file, it was stored before that.")
      assert.same({}, stored())
    end)

    local problem, attempt = "#uploads li:last-child .problem", 0

    -- Choose a file. Returns what the page says about its failure, and the buttons that it offers.
    local function failure(file)
      attempt = attempt + 1
      show()
      page:choose("#files", file or PDF)
      page:wait(("return document.querySelector('%s')"):format(problem))
      return text_of(problem), page:run [[
        return [...document.querySelectorAll("#uploads li:last-child button")].map(b => b.textContent).join(", ")]]
    end

    it("says in plain words why a file cannot be stored, and sends nothing", function()
      local said, buttons = failure(helper.big_file(26214401))
      assert.equal("The file is larger than 25 MB, and was not stored.", said)
      assert.equal("", buttons)
      said = failure(helper.write_file(helper.temporary ".txt", "text"))
      assert.matches("^The content is not that of a PDF, PNG, JPEG, TIFF or DOCX file", said)
      said = failure(helper.write_file(helper.temporary ".pdf", "text"))
      assert.matches("name says another type", said)
      said = failure(helper.write_file(helper.temporary ".pdf", ""))
      assert.equal("The file is empty.", said)
      assert.same({}, helper.journal "upload")
    end)

    for what, case in pairs {
      ["the service finds it too large"] = { { status = 413 }, "larger than 25 MB", "" },
      ["the service does not take its type"] = { { status = 415 }, "Only PDF, PNG", "" },
      ["there are too many requests"] = { { status = 429 }, "The service is busy. Try again in a minute.", "Try again" },
      ["the gateway may not upload"] = { { status = 403 }, "The service refused", "" },
    } do
      it("says that " .. what, function()
        helper.faults { operation = "upload", action = case[1], times = -1 }
        local said, buttons = failure()
        assert.matches(case[2], said, 1, true)
        assert.equal(case[3], buttons)
        if case[1].status ~= 429 then assert.equal(1, #helper.journal "upload") end -- that one cannot have been stored
        assert.same({}, stored())
      end)
    end

    it("says that the month's requests are used up", function()
      local said, buttons
      with_own_gateway(function() -- it will refuse requests for an hour
        helper.faults { operation = "upload", action = { status = 429, message = "Limit Exceeded" } }
        said, buttons = failure()
      end)
      assert.equal("This month's requests are used up. Ask the gateway's operator.", said)
      assert.equal("", buttons)
    end)

    it("says to look first if the outcome is unknown, and shows the list", function()
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local said, buttons = failure()
      assert.matches("It is not known whether this file was stored. Look first", said, 1, true)
      assert.equal("Look, Upload again", buttons)
      assert.equal("Look referral.pdf", (page:accessible "#uploads li:last-child button"))
      assert.equal("", names())
      page:click "#uploads li:last-child button"
      page:wait "return document.querySelectorAll('#rows tr').length === 1"
      page:wait "return document.activeElement.id === 'documents-title'"
      assert.equal(1, #helper.journal "upload")
    end)

    it("says to look first if the connection to the gateway breaks", function()
      with_own_gateway(function(own)
        show()
        helper.faults { operation = "upload", action = { during = { bytes = 1000000, how = "stall" } } }
        page:choose("#files", helper.big_file(25000000))
        page:wait "return document.querySelector('#uploads progress')?.value > 0"
        own:stop()
        wait_for_text(problem, "Look first")
      end)
      assert.same({}, stored())
    end)

    it("says that the gateway cannot be reached, and tries again on request", function()
      show()
      page:set_offline(true)
      page:choose("#files", PDF)
      wait_for_text(problem, "The gateway cannot be reached.")
      page:set_offline(false)
      page:click "#uploads li:last-child button"
      page:wait "return document.querySelectorAll('#rows tr').length === 1"
      assert.equal(1, #stored())
    end)

    -- Choose a file after the session has ended.
    local function let_session_end()
      page:delete_cookies()
      page:choose("#files", PDF)
      page:wait "return !document.getElementById('sign-in').hidden"
    end

    it("shows nothing of it to another user who signs in", function()
      local users = server.logs .. "/../users"
      helper.write_file(users, helper.read_file(users):gsub("demo:([^\n]*\n)", "%0second:%1"))
      show()
      let_session_end()
      sign_in "second"
      page:wait "return document.getElementById('user-name').textContent === 'second'"
      page:wait "return document.querySelectorAll('#uploads li').length === 0"
      page:click "#sign-out"
      page:wait "return !document.getElementById('sign-in').hidden"
    end)

    it("asks for a login if the session has ended, and keeps the file", function()
      show()
      let_session_end()
      sign_in "demo"
      wait_for_text(problem, "You are no longer signed in.")
      page:wait [[return document.querySelector("#uploads button").checkVisibility()]]
      page:click "#uploads li:last-child button"
      page:wait "return document.querySelectorAll('#rows tr').length === 1"
      assert.equal(1, #stored())
    end)
  end)

  describe("viewing", function()
    it("shows a PDF in place", function()
      add "referral.pdf"
      show()
      click("View", "referral.pdf")
      page:wait "return document.querySelector('#view iframe')?.contentDocument?.contentType === 'application/pdf'"
      assert.equal("", text_of "#view-problem")
      assert.equal("referral.pdf", text_of "#view-title")
      page:click "#view-close"
      assert.equal(0, page:run "return document.querySelectorAll('iframe').length")
    end)

    it("shows an image in place", function()
      add "insurance-card.png"
      show()
      click("View", "insurance-card.png")
      page:wait "return document.querySelector('#view img')?.naturalWidth === 320"
      assert.equal("insurance-card.png", page:run "return document.querySelector('#view img').alt")
      page:press(browser.keys.escape)
      page:wait "return !document.getElementById('view').open"
      assert.equal("View insurance-card.png", page:run "return document.activeElement.textContent")
    end)

    it("offers no view of what a browser cannot show", function()
      add "scan.tiff"
      add "referral.docx"
      show()
      assert.equal("Download Delete", page:run [[
        return [...document.querySelectorAll("#rows tr:first-child td:last-child > *")].map(e => e.firstChild.textContent).join(" ")]])
      assert.equal(0, page:run [[return [...document.querySelectorAll("#rows button")].filter(b => /View/.test(b.textContent)).length]])
    end)

    it("says in plain words why a document cannot be shown", function()
      local pdf, png = add "referral.pdf", add "insurance-card.png"
      show()
      helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(PATIENT, pdf.id))
      click("View", "referral.pdf")
      wait_for_text("#view-problem", "There is no such document. It may have been deleted meanwhile.")
      page:click "#view-close"
      helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(PATIENT, png.id))
      click("View", "insurance-card.png")
      wait_for_text("#view-problem", "The image could not be loaded.")
      page:click "#view-close"
    end)
  end)

  it("downloads a document under its name", function()
    add("referral.pdf", { file_name = "Überweisung 1.pdf" })
    show()
    click("Download", "Überweisung 1.pdf")
    local path = page.downloads .. "/Überweisung 1.pdf"
    helper.wait_for(function() return helper.exists(path) end)
    assert.equal(helper.sha256(PDF), helper.sha256(path))
  end)

  describe("deleting", function()
    before_each(function()
      add("referral.pdf", { file_name = "a.pdf", uploaded_at = "2026-01-02T10:00:00Z" })
      add("referral.pdf", { file_name = "b.pdf", uploaded_at = "2026-01-01T10:00:00Z" })
      show()
    end)

    it("asks first", function()
      click("Delete", "a.pdf")
      page:wait "return document.getElementById('question').open"
      assert.matches("“a.pdf” will be deleted for good.", text_of "#question", 1, true)
      assert.equal("Keep it", page:run "return document.activeElement.textContent")
      page:click "#question button[value=no]"
      page:wait "return document.activeElement.textContent === 'Delete a.pdf'"
      click("Delete", "a.pdf")
      page:press(browser.keys.escape)
      page:wait "return !document.getElementById('question').open"
      assert.equal(2, #stored())
      assert.same({}, helper.journal "delete")
    end)

    it("removes the row, and moves to the next one", function()
      click("Delete", "a.pdf")
      page:click "#question button[value=yes]"
      wait_for_text("#status", "a.pdf is deleted.")
      assert.equal("b.pdf", names())
      assert.equal("View b.pdf", page:run "return document.activeElement.textContent")
      assert.equal(1, #stored())
      assert.equal(1, #helper.journal "list")
    end)

    it("says that a document had already been deleted, and that the outcome is unknown", function()
      for _, document in ipairs(stored()) do
        if document.metadata.file_name == "a.pdf" then
          helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(PATIENT, document.id))
        end
      end
      click("Delete", "a.pdf")
      page:click "#question button[value=yes]"
      wait_for_text("#status", "a.pdf had already been deleted.")
      helper.faults { operation = "delete", action = { lost_reply = "reset" }, times = -1 }
      click("Delete", "b.pdf")
      page:click "#question button[value=yes]"
      wait_for_text("#status", "It is not known whether the document was deleted.")
      assert.equal("b.pdf", names())
    end)
  end)

  describe("showing another patient", function()
    local OTHER = "q-2048"

    local function switch_to(patient)
      page:run("location.hash = arguments[0]", patient)
      wait_for_text("#documents-title", "Patient " .. patient)
      page:wait "return /document/.test(document.getElementById('status').innerText)"
    end

    it("keeps nothing of the one before", function()
      add("referral.pdf", { document_type = "Referral" })
      show()
      page:fill("#upload [name=document_type]", "Referral")
      page:fill("#upload [name=description]", "of the first patient")
      page:run "document.querySelector('#filter [name=from]').value = '2020-01-01'"
      page:choose("#files", PDF)
      wait_for_text("#uploads li", "Stored")
      switch_to(OTHER)
      assert.equal("0 documents", text_of "#status")
      assert.equal("", names())
      assert.equal("", page:run [[
        return [...document.querySelectorAll("#upload input, #filter input, #filter select")].map(e => e.value).join("")]])
      assert.equal("", text_of "#uploads")
    end)

    it("deletes nothing that was asked about before", function()
      add "referral.pdf"
      show(OTHER)
      switch_to(PATIENT)
      click("Delete", "referral.pdf")
      page:wait "return document.getElementById('question').open"
      page:run "history.back()"
      wait_for_text("#documents-title", "Patient " .. OTHER)
      assert.is_false(page:run "return document.getElementById('question').open")
      assert.same({}, helper.journal "delete")
    end)

    it("says whose file an upload was, and looks there", function()
      show()
      helper.faults { operation = "upload", action = { delay_effect = 0.5, lost_reply = "reset" } }
      page:choose("#files", PDF)
      switch_to(OTHER)
      wait_for_text("#uploads li", "It is not known")
      assert.matches("referral.pdf for " .. PATIENT, text_of "#uploads li", 1, true)
      page:click "#uploads button"
      wait_for_text("#documents-title", "Patient " .. PATIENT)
      page:wait "return document.querySelectorAll('#rows tr').length === 1"
    end)

    it("is no mistake if the address is none", function()
      page:open(url .. "/blank")
      page:open(url .. "/#%")
      page:wait "return document.activeElement.name === 'id'"
      assert.equal("", page:run "return document.activeElement.value")
    end)
  end)

  it("says why the list cannot be shown", function()
    show()
    helper.faults { operation = "list", action = { status = 400 }, times = -1 }
    page:click "#patient button"
    wait_for_text("#status", "The service did not understand the request.")
  end)

  it("can be used by the keyboard alone", function()
    add "insurance-card.png"
    local tab, enter = browser.keys.tab, browser.keys.enter
    -- Press Tab until a condition on the focused element holds.
    local function go_to(what)
      for _ = 1, 40 do
        if page:run(("const e = document.activeElement; return %s"):format(what)) then
          assert(page:run [[
            const style = getComputedStyle(document.activeElement);
            return style.outlineStyle !== "none" || document.getElementById("drop").matches(":has(:focus-visible)")]], what)
          return
        end
        page:press(tab)
      end
      error("no way to " .. what)
    end
    page:open(url .. "/blank")
    page:delete_cookies()
    page:open(url)
    page:wait "return document.activeElement.name === 'user'"
    page:type "demo"
    page:press(tab)
    page:type(server.password)
    page:press(enter)
    page:wait "return document.activeElement.name === 'id'"
    page:type(PATIENT)
    page:press(enter)
    wait_for_text("#status", "1 document")
    go_to "e.name === 'document_type'"
    go_to "e.id === 'files'"
    go_to "e.name === 'type'"
    go_to "e.name === 'from'"
    go_to "e.textContent === 'View insurance-card.png'"
    page:press(enter)
    page:wait "return document.activeElement.id === 'view-close'"
    page:press(enter)
    page:wait "return document.activeElement.textContent === 'View insurance-card.png'"
    go_to "e.textContent === 'Delete insurance-card.png'"
    page:press(browser.keys.space)
    page:wait "return document.activeElement.value === 'no'"
    page:press(tab, enter)
    wait_for_text("#status", "insurance-card.png is deleted.")
    assert.equal("documents-title", page:run "return document.activeElement.id") -- no row is left
    assert.same({}, stored())
  end)

  it("has names and roles for screen readers", function()
    add "insurance-card.png"
    show()
    for selector, expected in pairs {
      ["#rows td:last-child button"] = { "View insurance-card.png", "button" },
      ["#rows td:last-child a"] = { "Download insurance-card.png", "link" },
      ["#rows .danger"] = { "Delete insurance-card.png", "button" },
      ["#patient input"] = { "Patient", "textbox" }, ["#filter select"] = { "Type", "combobox" },
      ["#filter [name=from]"] = { "From", "Date" }, table = { "Patient " .. PATIENT, "table" },
      ["#documents"] = { "Patient " .. PATIENT, "region" }, ["#status"] = { "", "status" },
    } do
      local name, role = page:accessible(selector)
      assert.equal(expected[1], name, selector)
      assert.equal(expected[2], role, selector)
    end
    assert.matches("^Choose files or drop them here", (page:accessible "#files"))
    click("Delete", "insurance-card.png")
    local name, role = page:accessible "#question"
    assert.equal("Delete this document?", name)
    assert.equal("dialog", role)
    page:click "#question button[value=no]"
    click("View", "insurance-card.png")
    assert.equal("insurance-card.png", (page:accessible "#view"))
    page:click "#view-close"
    assert.equal("en", page:run "return document.documentElement.lang")
  end)

  it("fits a phone, where the table keeps its roles", function()
    add("insurance-card.png", { file_name = ("long-name-"):rep(12) .. ".png", document_type = ("W"):rep(60), description = ("d"):rep(200) })
    page:resize(360, 740)
    show()
    local function width() return page:run "return document.documentElement.scrollWidth" end
    assert(width() <= 360, width())
    assert.equal("Uploaded", page:run "return document.querySelector('#rows td:nth-child(3)').dataset.label")
    local _, role = page:accessible "table"
    assert.equal("table", role)
    _, role = page:accessible "#rows td"
    assert.equal("cell", role)
    click("Delete", ("long-name-"):rep(12) .. ".png")
    assert(width() <= 360, width())
    page:click "#question button[value=no]"
    click("View", ("long-name-"):rep(12) .. ".png")
    assert(width() <= 360, width())
    page:click "#view-close"
    page:resize(1100, 900)
  end)

  it("leaves nothing behind after signing out", function()
    show()
    page:click "#sign-out"
    page:wait "return !document.getElementById('sign-in').hidden"
    assert.equal(url .. "/", page:run "return location.href")
    assert.is_nil(page:run("return document.body.innerText.includes(arguments[0]) || null", PATIENT))
  end)

  it("requests nothing from elsewhere, runs no inline script and logs no id", function()
    local documents = 0
    for _, entry in ipairs(page:log "performance") do
      local message = helper.json.decode(entry.message).message
      if message.method == "Network.requestWillBeSent" then
        local requested = message.params.request.url
        assert(requested:find "^http://127%.0%.0%.1:%d+/" or not requested:find "^%a+://" or requested:find "^chrome", requested)
        if requested:find("/documents", 1, true) then documents = documents + 1 end
      end
    end
    assert(documents > 20, documents)
    for _, entry in ipairs(page:log "browser") do
      assert.is_nil(entry.message:find("Content Security Policy", 1, true), entry.message)
      assert(entry.source == "network", entry.message) -- failed requests only, no errors of the script
    end
    page:open(url)
    page:run [[
      const script = document.createElement("script");
      script.textContent = "document.title = 'inline'";
      document.head.append(script);
      const image = new Image();
      image.src = "http://127.0.0.2/x.png"]]
    assert.equal("Documents", page:run "return document.title")
    local blocked = 0
    helper.wait_for(function()
      for _, entry in ipairs(page:log "browser") do
        if entry.message:find("Content Security Policy", 1, true) then blocked = blocked + 1 end
      end
      return blocked >= 2
    end)
    local log = server:log()
    assert.matches(" upload 201 ", log)
    for _, word in ipairs { PATIENT, "documents", "referral", "insurance", "doc-", server.password } do
      assert.is_nil(log:find(word, 1, true), word)
    end
  end)
end)
