-- SPDX-License-Identifier: MIT
-- examples/gateway, started as its README says, between curl and the sandbox.
local gateway = require "gateway"
local helper = require "helper"

local quote, wait_until = helper.quote, gateway.wait_until

local LARGEST = 26214400

-- A patient and a file whose names must not be logged.
local PATIENT = "patient-7531"
local NAME = "anna-marlowe.pdf"
local DOCUMENTS = "/patients/" .. PATIENT .. "/documents"
local PDF = "spec/fixtures/referral.pdf"

-- The files in a temporary directory, and the processes that use it.
local function left_over(folder)
  return helper.output("ls -A " .. folder) .. helper.output("grep -lsF TMPDIR=" .. folder .. " /proc/[0-9]*/environ")
end

-- Upload a file alone, with the rest in the query.
local function upload(server, file, query, arguments)
  return server:json(("%s?file_name=%s%s"):format(DOCUMENTS, NAME, query or ""),
    ("-X POST -T %s %s"):format(file, arguments or ""))
end

-- Upload a file in a form, as a browser does.
local function upload_form(server, file, arguments)
  return server:json(DOCUMENTS, ("-F document_type=Referral -F 'description=' -F 'file=@%s;filename=%s' %s"):format(
    file, NAME, arguments or ""))
end

-- The bytes of such an upload: of a file alone, and of a form.
local function post(server, path, bytes, length)
  return server:head("POST", path .. "?file_name=" .. NAME, "Content-Length: " .. (length or #bytes)) .. bytes
end

local function post_form(server, path, bytes, length)
  return server:head("POST", path, "Content-Type: multipart/form-data; boundary=b", "Content-Length: " .. (length or #bytes))
    .. bytes
end

-- The head of a form's part with a file.
local function file_part(name)
  return ('--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'):format(name)
end

local FILE = file_part(NAME)

local function document(fields)
  return helper.add_document({ patient = PATIENT, file_name = NAME, content_type = "application/pdf" }, fields).id
end

local function path_of(id)
  return DOCUMENTS .. "/" .. id
end

local function content_of(id)
  return path_of(id) .. "/content"
end

local function connections()
  return helper.admin("GET", "state").connections
end

-- The value of a header in a response's head, or nil.
local function value_of(head, name)
  for field, value in head:gmatch "\n([%w-]+): ([^\r]*)" do
    if field:lower() == name then return value end
  end
end

-- A checkout whose nginx.conf and gateway.lua are edited by sed.
local function copy(edit_conf, edit_lua)
  local folder = helper.temporary "-copy"
  os.execute(([[
    set -e
    mkdir -p FOLDER/examples FOLDER/spec
    ln -s ROOT/lua ROOT/build-jit FOLDER
    ln -s ROOT/spec/packages FOLDER/spec
    cp -r ROOT/examples/gateway FOLDER/examples
    cd FOLDER/examples/gateway
    sed -i CONF nginx.conf
    sed -i LUA gateway.lua
  ]]):gsub("%u+", { FOLDER = quote(folder), ROOT = quote(gateway.root), CONF = quote(edit_conf), LUA = quote(edit_lua or "") }))
  return folder
end

-- Reset everything except the tokens: a 401 for an old token would use up a fault that is planned
-- for another request.
local function clean()
  helper.admin("DELETE", "faults")
  helper.admin("DELETE", "journal")
  helper.admin("POST", "settings", { ranges = true })
  for _, found in ipairs(helper.stored(PATIENT)) do
    helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(PATIENT, found.id))
  end
end

describe("examples/gateway #nginx #gateway", function()
  local server
  local ids = {} -- of the uploaded documents

  setup(function()
    helper.reset()
    server = gateway.start { sandbox = helper.sandbox() }
    assert(server.logs, server:output())
    server:sign_in()
  end)

  teardown(function() if server then server:stop() end end)
  before_each(clean)

  it("uploads, lists, shows and deletes", function()
    local status, created, head = upload(server, PDF, "&document_type=Referral&description=a%20b")
    assert.equal(201, status)
    assert.equal(NAME, created.file_name)
    assert.equal("Referral", created.document_type)
    assert.equal("a b", created.description)
    assert.equal("application/pdf", created.content_type)
    assert.matches("\nlocation: " .. path_of(created.id):gsub("%-", "%%-"), head)
    ids[#ids + 1] = created.id
    local shown
    status, shown = server:json(path_of(created.id))
    assert.equal(200, status)
    assert.equal(created.file_size_bytes, shown.file_size_bytes)
    local _, listed = server:json(DOCUMENTS)
    assert.equal(created.id, listed.documents[1].id)
    assert.equal(204, (server:curl(path_of(created.id), "-X DELETE")))
    local gone
    status, gone = server:json(path_of(created.id))
    assert.equal(404, status)
    assert.same({ kind = "not_found", status = 404 }, gone)
    assert.equal('{"documents":[]}\n', helper.read_file(select(2, server:curl(DOCUMENTS))))
  end)

  it("lists the documents of a query, on all pages", function()
    helper.admin("POST", "seed", { patient = "many", count = 250, prefix = "n" })
    local path = "/patients/many/documents"
    local _, all = server:json(path)
    assert.equal(250, #all.documents)
    local status, some = server:json(path .. "?top=3&skip=120&orderby=id")
    assert.equal(200, status)
    assert.equal(3, #some.documents)
    assert.equal(all.documents[121].id, some.documents[1].id)
    local _, one = server:json(path, ("-G --data-urlencode \"filter=file_name eq '%s'\""):format(
      all.documents[7].file_name))
    assert.equal(1, #one.documents)
    assert.equal(all.documents[7].id, one.documents[1].id)
  end)

  for _, size in ipairs { 5, 1000, 1048575, 1048576, LARGEST } do
    it(("passes %d bytes on unchanged, in both directions"):format(size), function()
      local file = helper.big_file(size)
      local status, created = upload(server, file)
      assert.equal(201, status)
      assert.equal(helper.sha256(file), helper.stored(PATIENT)[1].sha256)
      local fetched, body, exit, head = server:curl(content_of(created.id))
      assert.equal(200, fetched)
      assert.equal(0, exit)
      assert.equal(helper.sha256(file), helper.sha256(body))
      assert.matches("\ncontent%-length: " .. size .. "\r", head:lower())
      assert.matches("\ncontent%-type: application/pdf\r", head:lower())
    end)
  end

  it("refuses a file that is not a document before it sends a request", function()
    for size = 0, 4 do
      helper.admin("DELETE", "journal")
      assert.equal(415, (upload(server, helper.big_file(size))))
      assert.equal(0, #helper.journal("upload"))
    end
  end)

  it("passes an empty and a one-byte document on", function()
    local empty = document { content = "" }
    local status, nothing, ended, head = server:curl(content_of(empty))
    assert.equal(200, status)
    assert.equal(0, ended)
    assert.equal("", helper.read_file(nothing))
    assert.matches("\ncontent%-length: 0\r", head:lower())
    local id = document { content = "%" }
    local _, body, exit = server:curl(content_of(id))
    assert.equal(0, exit)
    assert.equal("%", helper.read_file(body))
  end)

  it("refuses more than 25 MB, and a document of unknown length, before it is sent", function()
    local file = helper.big_file(LARGEST + 1)
    local sent = helper.output(server:command(DOCUMENTS .. "?file_name=a.pdf",
      "-X POST -o /dev/null -w '%{http_code} %{size_upload}' -T " .. file))
    assert.equal("413 0", sent)
    assert.equal(413, (upload(server, file, nil, "-H Expect:")))
    assert.equal(411, (upload(server, file, nil, "-H 'Transfer-Encoding: chunked'")))
    assert.same({}, helper.journal())
  end)

  it("refuses invalid requests, with a reason", function()
    local file = PDF
    assert.equal(415, (upload(server, file, nil, "-H 'Content-Type: text/plain'")))
    assert.equal(400, (upload(server, file, "&name=x")))
    assert.equal(400, (server:json(DOCUMENTS, "-X POST -T " .. file)))
    assert.equal(400, (server:json(DOCUMENTS .. "?file_name=a%0Ab.pdf", "-X POST -T " .. file)))
    for _, query in ipairs { "top=x", "top=-1", "top=9007199254740993", "skip=1.5", "filter=", "filer=id", "top=1&top=2", "top" } do
      assert.equal(400, (server:json(DOCUMENTS .. "?" .. query)), query)
    end
    local status, err, head = server:json(DOCUMENTS, "-X PUT")
    assert.equal(405, status)
    assert.same({ kind = "bad_request" }, err)
    assert.matches("\nallow: GET, POST\r", head)
    assert.equal(404, (server:json("/patients")))
    assert.same({}, helper.journal())
  end)

  it("maps the service's failures to statuses for its own callers", function()
    local function failure(operation, action, method, path)
      helper.faults { operation = operation, action = action, times = -1 }
      local status, err, head = server:json(path or path_of("one"), "-X " .. method)
      helper.admin("DELETE", "faults")
      return status, err, head
    end
    local status, err, head = failure("get", { status = 429, headers = { { "retry-after", "300" } } }, "GET")
    assert.equal(429, status)
    assert.same({ kind = "throttled", status = 429, retry_after = 300 }, err)
    assert.matches("\nretry%-after: 300\r", head)
    status, err = failure("get", { status = 403, body_kind = "service", message = "no access to Anna" }, "GET")
    assert.equal(502, status)
    assert.same({ kind = "forbidden", status = 403 }, err)
    status, err = failure("list", { status = 400 }, "GET", DOCUMENTS)
    assert.equal(400, status)
    assert.equal("bad_request", err.kind)
    assert.equal(404, (failure("download", { status = 404 }, "GET", content_of "one")))
    helper.faults { operation = "upload", action = { lost_reply = "reset" } }
    status, err = upload(server, PDF)
    assert.equal(502, status)
    assert.same({ kind = "network", reason = "reset", outcome_unknown = true }, err)
  end)

  it("serves slow clients and a slow service", function()
    local file = helper.big_file(300000)
    local status, created = upload(server, file, nil, "--limit-rate 300k")
    assert.equal(201, status)
    helper.faults { operation = "download", action = { delay = 0.3, drip = 1000000 } }
    local _, body, exit = server:curl(content_of(created.id), "--limit-rate 300k")
    assert.equal(0, exit)
    assert.equal(helper.sha256(file), helper.sha256(body))
  end)

  -- Disconnect once the service has received the request. Wait until its connection is closed.
  local function hang_up(operation, path, arguments)
    local pid = helper.output(("%s >/dev/null 2>&1 & echo $!"):format(server:command(path, arguments)))
    wait_until(operation .. " is on its way", function() return #helper.journal(operation) == 1 end)
    local before = connections()
    os.execute("kill " .. pid)
    wait_until(operation .. " ends at the service", function() return connections() < before end)
  end

  it("stores nothing of an upload whose client disconnects", function()
    hang_up("upload", DOCUMENTS .. "?file_name=" .. NAME, "-X POST --limit-rate 2M -T " .. helper.big_file(LARGEST))
    assert.same({}, helper.stored(PATIENT))
    wait_until("it is logged", function() return server:log():find(" upload 499 ", 1, true) end)
  end)

  it("logs that the outcome is unknown if a client disconnects before the service has answered", function()
    helper.faults({ operation = "upload", action = { delay = 3 } }, { operation = "delete", action = { delay = 3 } })
    local id = document { size = 10 }
    os.execute(server:command(DOCUMENTS, "-F file=@" .. PDF .. " --max-time 1"))
    os.execute(server:command(path_of(id), "-X DELETE --max-time 1"))
    wait_until("both are logged", function()
      local log = server:log()
      return log:find ' upload 499 [^"]+"gateway: canceled, outcome unknown"'
        and log:find ' delete 499 [^"]+"gateway: canceled, outcome unknown"'
    end)
  end)

  it("ends a stalled download whose client disconnects", function()
    local id = document { size = 1000000 }
    helper.faults { operation = "download", action = { stall = 500000 } }
    hang_up("download", content_of(id))
  end)

  it("breaks off the client's transfer if the service's transfer breaks off", function()
    local id = document { size = 1000000 }
    for _, action in ipairs { { cut = 500000 }, { reset = 500000 }, { cut = 500000, length = "chunked" },
                              { cut = 999999 }, { cut = 999999, length = "chunked" },
                              { remapped_length = true, length_delta = -1 } } do
      helper.faults { operation = "download", action = action }
      local status, _, exit = server:curl(content_of(id))
      assert.equal(200, status)
      assert.equal(18, exit)
    end
    helper.admin("POST", "seed", { patient = "more", count = 150 })
    helper.faults { operation = "list", skip = 1, action = { status = 400 } }
    local status, _, exit = server:curl("/patients/more/documents")
    assert.equal(200, status)
    assert.equal(18, exit)
  end)

  it("sends no content of unknown length to a client that could not detect its end", function()
    local id = document { size = 1000, file_size_bytes = helper.json.null }
    helper.faults { operation = "download", action = { length = "chunked" } }
    assert.equal(505, (server:curl(content_of(id), "--http1.0")))
    assert.equal(200, (server:curl(content_of(id), "--http1.0")))
  end)

  describe("given a browser's form", function()
    it("uploads its file with its fields", function()
      local status, created, head = upload_form(server, PDF)
      assert.equal(201, status)
      assert.equal(NAME, created.file_name)
      assert.equal("Referral", created.document_type)
      assert.equal("application/pdf", created.content_type)
      assert(created.description == nil or created.description == helper.json.null)
      assert.equal(path_of(created.id), value_of(head, "location"))
      assert.equal(helper.sha256(PDF), helper.stored(PATIENT)[1].sha256)
    end)

    it("sends the service the file's length, which it may require", function()
      upload_form(server, PDF)
      local sent = helper.journal "upload"[1]
      assert.matches("^%d+$", (helper.header(sent, "content-length")))
      assert.is_nil((helper.header(sent, "transfer-encoding")))
    end)

    it("passes names of any script on, and quotes as browsers write them", function()
      for name, sent in pairs { ["Überweisung Ägidius.pdf"] = "Überweisung Ägidius.pdf", ["紹介状.pdf"] = "紹介状.pdf",
                                ['a"b.pdf'] = "a%22b.pdf", ["100%.pdf"] = "100%.pdf" } do
        local body = file_part(sent) .. helper.read_file(PDF) .. "\r\n--b--\r\n"
        local count, text = server:raw(post_form(server, DOCUMENTS, body), 1)
        assert.equal(1, count)
        assert.matches("HTTP/1.1 201 ", text)
        assert.equal(name, helper.stored(PATIENT)[1].metadata.file_name)
        clean()
      end
    end)

    for _, size in ipairs { 5, 65536, 1048577, LARGEST } do
      it(("passes %d bytes on unchanged"):format(size), function()
        local file = helper.big_file(size)
        assert.equal(201, (upload_form(server, file)))
        assert.equal(helper.sha256(file), helper.stored(PATIENT)[1].sha256)
      end)
    end

    it("refuses more than 25 MB before it is sent", function()
      assert.equal(413, (upload_form(server, helper.big_file(LARGEST + 1))))
      assert.equal(413, (upload_form(server, helper.big_file(2 * LARGEST))))
      assert.same({}, helper.journal())
    end)

    it("refuses a file that is not a document before it sends a request", function()
      local text = helper.write_file(helper.temporary ".txt", "not a document\n")
      local status, err = upload_form(server, text)
      assert.equal(415, status)
      assert.same({ kind = "unsupported_type", reason = "signature" }, err)
      status, err = upload_form(server, helper.write_file(helper.temporary ".pdf", ""))
      assert.equal(415, status)
      assert.same({ kind = "unsupported_type", reason = "empty" }, err)
      assert.same({}, helper.journal())
    end)

    it("refuses a malformed form, and serves the next request on the connection", function()
      local file = helper.read_file(PDF)
      local get = server:head("GET", DOCUMENTS)
      for what, form in pairs {
        ["no file"] = '--b\r\nContent-Disposition: form-data; name="description"\r\n\r\nx\r\n--b--\r\n',
        ["a field behind the file"] = FILE .. file
          .. '\r\n--b\r\nContent-Disposition: form-data; name="description"\r\n\r\nx\r\n--b--\r\n',
        ["two files"] = FILE .. file .. "\r\n" .. FILE .. file .. "\r\n--b--\r\n",
        ["an unknown field"] = '--b\r\nContent-Disposition: form-data; name="id"\r\n\r\nx\r\n' .. FILE .. file
          .. "\r\n--b--\r\n",
        ["no end"] = FILE .. file,
        ["a wrong end"] = FILE .. file .. "\r\n--b-\r\n",
        ["something behind the end"] = FILE .. file .. "\r\n--b--\r\nx",
        ["a preamble"] = "x\r\n" .. FILE .. file .. "\r\n--b--\r\n",
        ["a control character in the name"] = file_part "a%0Ab.pdf" .. file .. "\r\n--b--\r\n",
        ["nothing"] = "",
      } do
        local count, text = server:raw(post_form(server, DOCUMENTS, form) .. get, 2)
        assert.equal(2, count, what)
        assert.matches("^%d\nHTTP/1.1 400 .*HTTP/1.1 200 ", text, 1, false)
        assert.matches('{"kind":"bad_request"}', text, 1, true)
        assert.same({}, helper.stored(PATIENT), what)
      end
    end)

    it("refuses a form with an invalid boundary, or with a query", function()
      for _, media in ipairs { "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b",
                               "multipart/form-data; boundary=" .. ("b"):rep(71) } do
        local status = server:json(DOCUMENTS, ("-H 'Content-Type: %s' --data-binary x"):format(media))
        assert.equal(400, status, media)
      end
      assert.equal(400, (server:json(DOCUMENTS .. "?file_name=a.pdf", "-F file=@" .. PDF)))
      assert.same({}, helper.journal())
    end)

    it("stores nothing of an upload whose client disconnects", function()
      local pid = helper.output(("%s >/dev/null 2>&1 & echo $!"):format(server:command(DOCUMENTS,
        ("-F file=@%s --limit-rate 2M"):format(helper.big_file(LARGEST)))))
      wait_until("the upload is on its way", function() return #helper.journal "upload" == 1 end)
      local before = connections()
      os.execute("kill " .. pid)
      wait_until("the upload ends at the service", function() return connections() < before end)
      assert.same({}, helper.stored(PATIENT))
    end)

    it("says that the outcome is unknown if the service's response is lost", function()
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local status, err = upload_form(server, PDF)
      assert.equal(502, status)
      assert.same({ kind = "network", reason = "reset", outcome_unknown = true }, err)
      assert.equal(1, #helper.stored(PATIENT))
    end)
  end)

  describe("HEAD", function()
    it("shows a document's size, type and name without a request for its content", function()
      local id = document { size = 1000, file_name = "Übersicht 50%.pdf" }
      local status, body, _, head = server:curl(content_of(id), "-I")
      assert.equal(200, status)
      assert.equal(head, helper.read_file(body)) -- as curl writes it
      assert.equal("1000", value_of(head, "content-length"))
      assert.equal("application/pdf", value_of(head, "content-type"))
      assert.equal("bytes", value_of(head, "accept-ranges"))
      assert.equal([[attachment; filename="_bersicht 50_.pdf"; filename*=UTF-8''%C3%9Cbersicht%2050%25.pdf]],
        value_of(head, "content-disposition"))
      assert.equal(1, #helper.journal "get")
      assert.same({}, helper.journal "download")
    end)

    it("says that a document does not exist", function()
      local status, body = server:curl(content_of "none", "-I")
      assert.equal(404, status)
      assert.matches("404", helper.read_file(body))
    end)
  end)

  for _, ranges in ipairs { true, false } do
    describe(("with a service that supports %s"):format(ranges and "ranges" or "no ranges"), function()
      local SIZE = 300000
      local file, id, sent

      before_each(function()
        helper.admin("POST", "settings", { ranges = ranges })
        file = helper.big_file(SIZE)
        id = upload(server, file) and helper.stored(PATIENT)[1].id
        sent = helper.read_file(file)
        helper.admin("DELETE", "journal")
      end)

      it("sends the bytes of a range", function()
        for range, expected in pairs {
          ["0-0"] = { 0, 0 }, ["0-99"] = { 0, 99 }, ["1-1"] = { 1, 1 }, ["65535-65536"] = { 65535, 65536 },
          ["299999-"] = { SIZE - 1, SIZE - 1 }, ["299990-400000"] = { 299990, SIZE - 1 }, ["0-"] = { 0, SIZE - 1 },
          ["-1"] = { SIZE - 1, SIZE - 1 }, ["-1000"] = { SIZE - 1000, SIZE - 1 }, ["-400000"] = { 0, SIZE - 1 },
          ["5-99999999999999999999"] = { 5, SIZE - 1 }, [" 7-8 "] = { 7, 8 },
        } do
          local first, last = expected[1], expected[2]
          local status, body, _, head = server:curl(content_of(id), ("-H 'Range: bytes=%s'"):format(range))
          assert.equal(206, status, range)
          assert(sent:sub(first + 1, last + 1) == helper.read_file(body), range)
          assert.equal(("bytes %d-%d/%d"):format(first, last, SIZE), value_of(head, "content-range"))
          assert.equal(tostring(last - first + 1), value_of(head, "content-length"))
          assert.equal("application/pdf", value_of(head, "content-type"))
        end
      end)

      it("sends a range of a document whose length the service does not state", function()
        helper.faults { operation = "download", action = { length = "chunked" }, times = -1 }
        local status, body, exit, head = server:curl(content_of(id), "-r 250000-250099")
        assert.equal(206, status)
        assert.equal(0, exit)
        assert(sent:sub(250001, 250100) == helper.read_file(body))
        assert.equal("100", value_of(head, "content-length"))
      end)

      it("breaks off a range that breaks off at the service", function()
        helper.faults { operation = "download", action = { cut = 200000 }, times = -1 }
        local status, _, exit, head = server:curl(content_of(id), "-r 0-249999")
        assert.equal(206, status)
        assert.equal("250000", value_of(head, "content-length"))
        assert.equal(18, exit)
      end)

      it("refuses a range without a byte", function()
        for _, range in ipairs { "300000-", "300000-300001", "99999999999999999999-", "-0" } do
          local status, _, head = server:json(content_of(id), "-H 'Range: bytes=" .. range .. "'")
          assert.equal(416, status, range)
          assert.equal("bytes */300000", value_of(head, "content-range"))
        end
        local empty = document { content = "" }
        local status, _, head = server:json(content_of(empty), "-r 0-")
        assert.equal(416, status)
        assert.equal("bytes */0", value_of(head, "content-range"))
        assert.same({}, helper.journal "download")
      end)

      it("ignores a header Range that is no single valid range", function()
        for _, range in ipairs { "bytes=5-4", "bytes=-", "bytes=", "bytes=a-b", "pages=1-2", "bytes=0-1,3-4", "0-1", "bytes=0-1x" } do
          local status, body = server:curl(content_of(id), ("-H 'Range: %s'"):format(range))
          assert.equal(200, status, range)
          assert(sent == helper.read_file(body), range)
        end
        local status = server:curl(content_of(id), "-I -r 0-1")
        assert.equal(200, status)
      end)

      it("sends a range if the document is the one of If-Range, and otherwise all of it", function()
        local _, _, _, head = server:curl(content_of(id))
        local etag = value_of(head, "etag")
        assert.matches('^"%x+"$', etag)
        local function conditional(condition)
          local status, body = server:curl(content_of(id), ("-r 10-19 -H 'If-Range: %s'"):format(condition))
          return status, helper.read_file(body)
        end
        local status, body = conditional(etag)
        assert.equal(206, status)
        assert.equal(sent:sub(11, 20), body)
        for _, condition in ipairs { '"other"', "W/" .. etag, "Tue, 01 Dec 2026 00:00:00 GMT" } do
          status, body = conditional(condition)
          assert.equal(200, status, condition)
          assert(sent == body)
        end
        status = server:curl(content_of(id), "-r 300000- -H 'If-Range: \"other\"'")
        assert.equal(200, status)
        helper.faults { operation = "download", action = { no_validators = true }, times = -1 }
        status, body = conditional(etag)
        assert.equal(200, status)
        assert(sent == body)
      end)
    end)
  end

  it("fails if the service sends another part than the requested one", function()
    local id = document { size = 1000 }
    helper.faults { operation = "download", action = { bad_range = "wrong_start" }, times = -1 }
    local status, body = server:curl(content_of(id), "-r 10-19")
    assert(status == 206 and #helper.read_file(body) == 10 or status == 502, status)
    helper.faults { operation = "download", action = { bad_range = "wrong_total" }, times = -1 }
    assert.equal(502, (server:curl(content_of(id), "-r 10-19")))
  end)

  it("says whether a document has changed, by the service's entity-tag", function()
    local id = document { size = 1000 }
    local _, _, _, head = server:curl(content_of(id))
    local etag = value_of(head, "etag")
    for _, condition in ipairs { etag, "W/" .. etag, '"other", ' .. etag, "*" } do
      local status, body, _, answer = server:curl(content_of(id), ("-H 'If-None-Match: %s'"):format(condition))
      assert.equal(304, status, condition)
      assert.equal("", helper.read_file(body))
      assert.equal(etag, value_of(answer, "etag"))
      assert.is_nil(value_of(answer, "content-length"))
    end
    assert.equal(200, (server:curl(content_of(id), "-H 'If-None-Match: \"other\"'")))
    helper.faults { operation = "download", action = { no_validators = true }, times = -1 }
    local status, body, _, answer = server:curl(content_of(id), ("-H 'If-None-Match: %s'"):format(etag))
    assert.equal(200, status)
    assert.equal(1000, #helper.read_file(body))
    assert.is_nil(value_of(answer, "etag"))
  end)

  it("fulfils If-Match, and ignores conditions on times", function()
    local id = document { size = 1000 }
    local _, _, _, head = server:curl(content_of(id))
    local etag = value_of(head, "etag")
    for condition, expected in pairs { [etag] = 200, ["*"] = 200, ['"a", ' .. etag] = 200, ['"a"'] = 412, ["W/" .. etag] = 412 } do
      assert.equal(expected, (server:curl(content_of(id), ("-H 'If-Match: %s'"):format(condition))), condition)
    end
    assert.equal(412, (server:curl(content_of(id), "-r 0-9 -H 'If-Match: \"a\"'")))
    for _, request in ipairs { { "GET", path_of(id) }, { "DELETE", path_of(id) }, { "GET", DOCUMENTS } } do
      local status, err = server:json(request[2], ("-X %s -H 'If-Match: %s'"):format(request[1], etag))
      assert.equal(412, status)
      assert.same({ kind = "bad_request" }, err)
    end
    assert.equal(200, (server:curl(content_of(id), "-H 'If-Unmodified-Since: Tue, 01 Dec 2020 00:00:00 GMT'")))
    assert.equal(200, (server:json(DOCUMENTS, "-H 'If-Unmodified-Since: Tue, 01 Dec 2020 00:00:00 GMT'")))
    assert.equal(1, #helper.stored(PATIENT))
  end)

  it("lets a browser show PDF and images, and nothing else", function()
    for media, kind in pairs { ["application/pdf"] = "inline", ["image/png"] = "inline", ["image/jpeg"] = "inline",
                               ["image/tiff"] = "attachment", ["text/html"] = "attachment",
                               ["image/svg+xml"] = "attachment" } do
      local id = document { size = 1000, content_type = media }
      local _, _, _, head = server:curl(content_of(id) .. "?inline=1", "-I")
      assert.matches("^" .. kind .. ";", value_of(head, "content-disposition"), media)
      _, _, _, head = server:curl(content_of(id), "-I")
      assert.matches("^attachment;", value_of(head, "content-disposition"), media)
    end
    assert.equal(400, (server:json(content_of "one" .. "?inline=2")))
  end)

  it("requests the metadata of listed documents only once", function()
    local id = document { size = 1000 }
    server:curl(DOCUMENTS)
    -- on one connection, so from one worker
    local command = server:command(DOCUMENTS, "-o /dev/null"):gsub("http://localhost(%S+)'$", function(path)
      return ("http://localhost%s' -o /dev/null 'http://localhost%s' -r 0-9 -o /dev/null 'http://localhost%s'"):format(path,
        content_of(id), content_of(id))
    end)
    os.execute(command)
    assert.same({}, helper.journal "get")
    assert.equal(2, #helper.journal "download")
  end)

  it("sends headers that keep documents out of caches and other sites", function()
    local id = document { size = 1000 }
    for _, path in ipairs { "/", "/page.js", DOCUMENTS, content_of(id), path_of "none" } do
      local _, _, _, head = server:curl(path)
      assert.equal("no-store", value_of(head, "cache-control"), path)
      assert.equal("nosniff", value_of(head, "x-content-type-options"), path)
      assert.equal("no-referrer", value_of(head, "referrer-policy"), path)
      assert.equal("same-origin", value_of(head, "cross-origin-resource-policy"), path)
      assert.matches("default%-src 'none'", value_of(head, "content-security-policy"), path)
      assert.matches(path == "/" and "frame%-ancestors 'none'" or "frame%-ancestors 'self'",
        value_of(head, "content-security-policy"))
    end
    local _, _, _, head = server:curl "/"
    assert.is_nil(value_of(head, "content-security-policy"):find("unsafe", 1, true))
  end)

  it("passes a caller's request id on, if it is one, and otherwise its own", function()
    local function sent(arguments)
      helper.admin("DELETE", "journal")
      local _, _, head = server:json(DOCUMENTS, arguments)
      return helper.header(helper.journal "list"[1], "x-request-id"), value_of(head, "x-request-id")
    end
    local passed, own = sent "-H 'x-request-id: 0af7651916cd43dd-8448.A_1'"
    assert.equal("0af7651916cd43dd-8448.A_1", passed)
    assert.matches("^%x+$", own)
    for _, id in ipairs { "two words", "a;b", "a/b", ("x"):rep(65), "ü" } do
      passed, own = sent(("-H 'x-request-id: %s'"):format(id))
      assert.equal(own, passed, id)
    end
    passed, own = sent()
    assert.equal(own, passed)
  end)

  describe("without a session", function()
    it("refuses everything but the page", function()
      for _, request in ipairs { { "GET", DOCUMENTS }, { "POST", DOCUMENTS }, { "GET", path_of "one" },
                                 { "DELETE", path_of "one" }, { "GET", content_of "one" }, { "GET", "/session" } } do
        local status, err, head = server:anonymous_json(request[2], "-H 'Origin: http://localhost' -X " .. request[1])
        assert.equal(401, status)
        assert.same({ kind = "not_signed_in" }, err)
        assert.equal('Cookie realm="documents"', value_of(head, "www-authenticate")) -- a browser must not ask
      end
      for _, path in ipairs { "/", "/page.css", "/page.js" } do
        assert.equal("200", helper.output(server:anonymous(path, "-o /dev/null -w '%{http_code}'")))
      end
      assert.same({}, helper.journal())
    end)

    it("refuses a cookie that it has not made", function()
      for _, cookie in ipairs { "", "x", ("0"):rep(64), "../" .. ("0"):rep(64), server.cookie:match "=(.*)$" .. "0" } do
        local status = server:anonymous_json(DOCUMENTS, "-H 'Cookie: nymbl_session=" .. cookie .. "'")
        assert.equal(401, status, cookie)
      end
    end)

    it("refuses a wrong password, and every malformed login", function()
      for _, form in ipairs { "user=demo&password=wrong", "user=nobody&password=" .. server.password, "user=demo", "",
                              "user=demo&password=", "user=&password=", "user=demo&user=demo&password=" .. server.password } do
        local status, err, head = server:anonymous_json("/login", ("-H 'Origin: http://localhost' -d '%s'"):format(form))
        assert(status == 401 or status == 429, status) -- it limits attempts
        assert.equal(status == 401 and "wrong_password" or "throttled", err.kind)
        assert.is_nil(value_of(head, "set-cookie"))
      end
      assert.equal(413, (server:anonymous_json("/login", "-d " .. ("a"):rep(5000))))
    end)
  end)

  it("lets a session end", function()
    local other = gateway.start { sandbox = helper.sandbox() }
    other:sign_in()
    assert.same({ user = "demo" }, select(2, other:json "/session"))
    local cookie = helper.read_file(other.jar)
    assert.matches("#HttpOnly_", cookie)
    local status, _, _, head = other:curl("/session", "-X DELETE")
    assert.equal(204, status)
    assert.matches("^nymbl_session=; .*Max%-Age=0; HttpOnly; SameSite=Strict$", value_of(head, "set-cookie"))
    assert.equal(401, (other:json "/session"))
    other:stop()
  end)

  it("expects its own address as the origin, and TLS for its cookie if that has it", function()
    local other = gateway.start {
      folder = copy "s|set .origin .*|set $origin https://documents.example.org;|", sandbox = helper.sandbox(),
    }
    local function log_in(origin)
      local status, _, _, head = other:curl("/login", ("-H 'Origin: %s' -d user=demo -d password=%s"):format(origin, other.password))
      return status, value_of(head, "set-cookie")
    end
    assert.equal(403, (log_in "http://localhost"))
    local status, cookie = log_in "https://documents.example.org"
    assert.equal(204, status)
    assert.matches("; HttpOnly; SameSite=Strict; Secure$", cookie)
    other:stop()
  end)

  it("limits attempts to sign in", function()
    local other = gateway.start { sandbox = helper.sandbox() }
    local statuses = {}
    for _ = 1, 15 do
      local status = other:anonymous_json("/login", "-H 'Origin: http://localhost' -d user=demo -d password=x")
      statuses[status] = (statuses[status] or 0) + 1
    end
    assert(statuses[401] >= 11 and statuses[429], statuses[401])
    other:stop()
  end)

  it("keeps the users between starts, with no password in the file", function()
    local users = helper.temporary ".users"
    local first = gateway.start { sandbox = helper.sandbox(), users = users }
    first:sign_in()
    first:stop()
    local text = helper.read_file(users)
    assert.matches("^demo:%$6%$[^\n]+\n$", text)
    assert.is_nil(text:find(first.password, 1, true))
    assert.equal("600", helper.output("stat -c %a " .. users))
    local second = gateway.start { sandbox = helper.sandbox(), users = users }
    assert.is_nil(second.password)
    second.password = first.password
    second:sign_in()
    second:stop()
  end)

  describe("given a request that another site could have made", function()
    local function refused(method, path, arguments)
      local status, err = server:json(path, ("-X %s %s"):format(method, arguments))
      assert.equal(403, status, arguments)
      assert.same({ kind = "cross_site" }, err)
    end

    it("changes nothing", function()
      local id = document { size = 1000 }
      for _, headers in ipairs { "-H Origin:", "-H 'Origin: http://evil.example'", "-H 'Origin: null'", "-H 'Origin: https://localhost'",
                                 "-H 'Origin: http://localhost:8080'", "-H 'Origin: http://localhost.evil.example'",
                                 "-H Origin: -H 'Sec-Fetch-Site: cross-site'", "-H Origin: -H 'Sec-Fetch-Site: same-site'",
                                 "-H Origin: -H 'Sec-Fetch-Site: none'",
                                 "-H 'Origin: http://localhost' -H 'Sec-Fetch-Site: cross-site'",
                                 "-H 'Origin: http://evil.example' -H 'Sec-Fetch-Site: same-origin'" } do
        refused("POST", DOCUMENTS, headers .. " -F file=@" .. PDF)
        refused("POST", DOCUMENTS .. "?file_name=a.pdf", headers .. " -T " .. PDF)
        refused("DELETE", path_of(id), headers)
        refused("DELETE", "/session", headers)
      end
      assert.same({}, helper.journal())
      assert.equal(1, #helper.stored(PATIENT))
    end)

    it("accepts either header of the page itself", function()
      assert.equal(204, (server:curl(path_of(document { size = 10 }), "-X DELETE -H Origin: -H 'Sec-Fetch-Site: same-origin'")))
      assert.equal(204, (server:curl(path_of(document { size = 10 }), "-X DELETE")))
    end)

    it("shows nothing to another site's page, which would cost requests", function()
      for _, site in ipairs { "cross-site", "same-site" } do
        refused("GET", DOCUMENTS, ("-H 'Sec-Fetch-Site: %s'"):format(site))
      end
      assert.equal(200, (server:json(DOCUMENTS, "-H 'Sec-Fetch-Site: none'")))
      assert.equal(1, #helper.journal())
    end)
  end)

  it("knows no other paths, however they are written", function()
    for _, path in ipairs { "/index.html", "/page/index.html", "/gateway.lua", "/users", "/../users", "/%2e%2e/users", "/page.js/../users",
                            "/logs/access.log", "/page.css/", "/refused", "/patients", "/patients/", "/patients/a",
                            "/patients/a/documents/", "/patients//documents", "/patients/a%2Fb/documents",
                            "/patients/a/documents/b%2Fc", "/patients/a/documents/b/content/", "/patients/a/documents/b/x",
                            "/patients/a/documents/../../../users", "/Patients/a/documents" } do
      local status, err = server:json(path, "--path-as-is")
      assert(status == 404 or (status == 400 and path:find("%.%.") or path:find("%2e", 1, true)), path .. " " .. status)
      assert(err.kind == "not_found" or err.kind == "bad_request", path)
    end
    assert.same({}, helper.journal())
    -- an id is data, and reaches the service as it is
    helper.admin("POST", "documents", { patient = "a b&c'(1)", file_name = NAME, size = 10 })
    assert.equal(1, #select(2, server:json "/patients/a%20b%26c%27%281%29/documents").documents)
    assert.equal(1, #select(2, server:json "/patients/x/../a%20b%26c%27%281%29/documents").documents)
  end)

  it("answers in JSON what nginx refuses itself", function()
    local long = ("x"):rep(20000)
    for _, request in ipairs { "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "garbage\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
                               "GET /" .. long .. " HTTP/1.1\r\nHost: x\r\n\r\n",
                               "GET / HTTP/1.1\r\nHost: x\r\nx: " .. long .. "\r\n\r\n" } do
      local _, text = server:raw(request, 1)
      assert.matches('{"kind":"bad_request"}', text, 1, true)
      assert.is_nil(text:lower():find("html", 1, true))
    end
  end)

  it("does not parse a refused document as a request", function()
    helper.faults { operation = "upload", action = { early_status = 403 } }
    local get = server:head("GET", DOCUMENTS)
    local body = "%PDF-1.4\n" .. get:rep(30000)
    local count, text = server:raw(post(server, DOCUMENTS, body) .. get, 2)
    assert.equal(2, count, text)
    assert.matches("HTTP/1.1 502 .*HTTP/1.1 200 ", text)
    -- refused by the gateway itself, before it has read any byte
    count, text = server:raw(post(server, "/patients/p/other", body) .. get, 2)
    assert.equal(2, count)
    assert.matches("HTTP/1.1 404 .*HTTP/1.1 200 ", text)
  end)

  it("logs neither id, name nor secret", function()
    local created = select(2, upload(server, PDF))
    ids[#ids + 1] = created.id
    server:curl(content_of(created.id))
    ids[#ids + 1] = select(2, upload_form(server, PDF)).id
    server:raw(post_form(server, DOCUMENTS, FILE .. "%PDF-1.4"), 1)
    server:raw(post(server, DOCUMENTS, "%PDF-1.4", 100000000), 1)
    server:json(content_of(created.id), "-H Origin: -X DELETE")
    server:raw("GET " .. path_of "x" .. " HTTP/1.1\r\nbroken " .. NAME .. "\r\n\r\n", 1)
    server:raw("GET " .. path_of(("x"):rep(20000)) .. " HTTP/1.1\r\nHost: localhost\r\n\r\n", 1)
    local log = server:log()
    assert.matches(" upload 201 ", log)
    assert.matches(" download 200 ", log)
    assert.matches("nymbl: %l+: forbidden 403", log)
    assert.matches(' upload 400 [^"]+"gateway: bad_request"', log) -- after its body was read
    local sandbox = helper.sandbox()
    local words = { PATIENT, "patients", "anna", sandbox.api_key, sandbox.client_id, sandbox.client_secret,
                    sandbox.base_url, server.password, server.cookie:match "=(.*)$",
                    helper.header(helper.journal("upload")[1], "authorization"):match("%S+$") }
    for _, word in ipairs(words) do assert.is_nil(log:lower():find(word:lower(), 1, true), word) end
    for _, id in ipairs(ids) do assert.is_nil(log:find(id, 1, true)) end
  end)

  describe("with one worker, short timeouts and a mistake in it", function()
    local small

    setup(function()
      local folder = copy([[
        s/worker_processes auto/worker_processes 1/
        s/read_timeout 30s/read_timeout 1s/
        s/worker_connections 1024/worker_connections 32/
      ]], "s/^local function get()$/& error(ngx.var.document)/")
      small = gateway.start { folder = folder, sandbox = helper.sandbox() }
      assert(small.logs, small:output())
      small:sign_in()
    end)

    teardown(function() if small then small:stop() end end)

    it("holds no document in memory", function()
      local file = helper.big_file(LARGEST)
      local warm = helper.big_file(1000)
      small:curl(content_of(select(2, upload(small, warm)).id))
      local before = small:peak()
      local status, created = upload(small, file)
      assert.equal(201, status)
      local body = select(2, small:curl(content_of(created.id)))
      assert.equal(helper.sha256(file), helper.sha256(body))
      local _, _, exit = small:curl(content_of(created.id), "--limit-rate 1k --max-time 0.5")
      assert.equal(28, exit)
      local grown = small:peak() - before
      assert(grown < 6000, grown .. " kB")
    end)

    it("needs at most 1 MB more for a form of 25 MB than for one of 100 kB #memory", function()
      for _ = 1, 5 do assert.equal(201, (upload_form(small, helper.big_file(100000)))) end -- a warm worker
      local before = small:peak()
      assert.equal(201, (upload_form(small, helper.big_file(LARGEST))))
      local grown = small:peak() - before
      assert(grown <= 1024, grown .. " kB")
    end)

    it("keeps no form in a file", function()
      helper.faults { operation = "upload", action = { during = { bytes = 5000000, how = "stall" } } }
      local pid = helper.output(("%s >/dev/null 2>&1 & echo $!"):format(small:command(DOCUMENTS,
        ("-F file=@%s"):format(helper.big_file(LARGEST)))))
      wait_until("the upload is on its way", function() return #helper.journal "upload" == 1 end)
      os.execute "sleep 0.2"
      assert.equal("", helper.output(("ls -l /proc/%s/fd | grep -F /temp/"):format(small:worker())))
      os.execute("kill " .. pid)
    end)

    it("logs no id if it runs out of connections", function()
      local id = document { size = 1000000 }
      helper.faults { operation = "download", action = { stall = 500000 }, times = -1 }
      local commands = {}
      for i = 1, 40 do
        commands[i] = small:command(content_of(id) .. "?inline=1", "-o /dev/null --max-time 2") .. " &"
      end
      os.execute(table.concat(commands, "\n") .. "\nwait")
      assert(#helper.journal "download" > 10)
      assert.is_nil(small:log():find("inline", 1, true))
      assert.is_nil(small:log():find(PATIENT, 1, true))
    end)

    it("gives up on a client that stops in the middle of an upload", function()
      local before = connections()
      local _, text = small:raw(post(small, DOCUMENTS, "%PDF-1.4\n" .. ("x"):rep(100000), 200000), 2)
      assert.matches("HTTP/1.1 408 ", text)
      assert.matches('{"kind":"timeout"}', text, 1, true)
      wait_until("the upload ends at the service", function() return connections() <= before end)
      assert.same({}, helper.stored(PATIENT))
    end)

    it("logs the location of a mistake, not its text", function()
      local status, err = small:json(path_of(PATIENT))
      assert.equal(500, status)
      assert.same({ kind = "internal" }, err)
      local log = small:log()
      assert.matches("gateway: internal, gateway.lua:%d+", log)
      assert.is_nil(log:find(PATIENT, 1, true))
    end)
  end)

  describe("started alone", function()
    it("starts a sandbox, prints commands that work, and ends with its input", function()
      local own = gateway.start {}
      local text = own:output()
      assert(own.logs, text)
      local commands, id = {}, nil
      for command in text:gmatch("\n  (curl [^\n]+)") do
        commands[#commands + 1] = command
        command = command:gsub("%S+%.pdf", { ["copy.pdf"] = "/dev/null", ["part.pdf"] = "/dev/null" }):gsub("/ID", "/" .. (id or ""))
        local said = helper.output(("cd %s && %s -s -f; echo $?"):format(quote(gateway.root), command))
        assert.matches("0$", said, 1, false)
        id = id or said:match('"id":"([^"]+)"')
      end
      assert.equal(7, #commands)
      own:stop()
      assert.equal("", left_over(own.temporary))
    end)

    it("cleans up when it is terminated", function()
      local script = helper.write_file(helper.temporary(".sh"), [[
        "$1/examples/gateway/run" --listen "unix:$2.sock" >"$2" 2>&1 &
        until grep -qs "Its logs are in" "$2" || ! kill -0 $!; do sleep 0.05; done
        kill $!
        wait $!
      ]])
      local temporary = helper.temporary("-tmp")
      os.execute("mkdir " .. temporary)
      local status = helper.output(("env TMPDIR=%s bash %s %s %s >/dev/null 2>&1; echo $?"):format(temporary,
        script, quote(gateway.root), helper.temporary(".out")))
      assert.equal(tostring(128 + 15), status)
      assert.equal("", left_over(temporary))
    end)

    it("reports why it does not start, without a secret", function()
      local sandbox = { base_url = "https://127.0.0.1:1", api_key = "a-secret-key", token_url = "ftp://127.0.0.1",
                        client_id = "c", client_secret = "another-secret", scope = "s",
                        ca_file = "/dev/null" }
      local own = gateway.start { sandbox = sandbox }
      local text = own:output()
      own:stop()
      assert.matches("token_url", text)
      assert.matches("gateway: nginx did not start\n$", text)
      assert.is_nil(text:find("secret", 1, true))
      assert.equal("", left_over(own.temporary))
    end)
  end)
end)
