-- SPDX-License-Identifier: MIT
-- examples/gateway, started as its README says, between curl and the sandbox.
local helper = require "helper"

local quote = helper.quote

local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")

local LARGEST = 26214400

-- A patient and a file whose names must not be logged.
local PATIENT = "patient-7531"
local NAME = "anna-marlowe.pdf"
local DOCUMENTS = "/patients/" .. PATIENT .. "/documents"

local SETTINGS = { "BASE_URL", "API_KEY", "CA_FILE", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "SCOPE" }

-- The files in a temporary directory, and the processes that use it.
local function left_over(folder)
  return helper.output("ls -A " .. folder) .. helper.output("grep -lsF TMPDIR=" .. folder .. " /proc/[0-9]*/environ")
end

local gateway = {}
gateway.__index = gateway

local function wait_until(what, condition)
  for _ = 1, 400 do
    if condition() then return end
    os.execute("sleep 0.025")
  end
  error("in vain: " .. what)
end

-- Start the run command in `folder`. Without a sandbox it starts its own.
local function start(folder, sandbox)
  local self = setmetatable({ out = helper.temporary(".out"), socket = helper.temporary(".sock"),
                              temporary = helper.temporary("-tmp") }, gateway)
  os.execute("mkdir " .. self.temporary)
  local words = { "cd / && exec env", "TMPDIR=" .. self.temporary }
  for _, name in ipairs(sandbox and SETTINGS or {}) do
    words[#words + 1] = ("NYMBL_%s=%s"):format(name, quote(sandbox[name:lower()]))
  end
  words[#words + 1] = ("%s/examples/gateway/run --stdin --limits off --listen unix:%s >%s 2>&1"):format(folder,
    self.socket, self.out)
  -- it ends with the pipe, so it cannot outlive this process
  self.pipe = assert(io.popen(table.concat(words, " "), "w"))
  wait_until("the gateway is ready", function()
    local text = io.open(self.out) and helper.read_file(self.out) or ""
    self.logs = text:match("Its logs are in (%S+),")
    return self.logs or text:find("\ngateway: ")
  end)
  return self
end

function gateway:stop()
  if self.pipe then self.pipe:close() end -- waits for its end
  self.pipe = nil
end

function gateway:log()
  return helper.output(("cat %s/*"):format(self.logs))
end

function gateway:command(path, arguments)
  return ("curl -s --max-time 60 --unix-socket %s %s 'http://localhost%s'"):format(self.socket, arguments or "", path)
end

-- Run curl. Returns the response's status, the file with its body, curl's exit status, the head.
function gateway:curl(path, arguments)
  local body, head = helper.temporary(".body"), helper.temporary(".head")
  local text = helper.output(("%s; echo \" $?\""):format(self:command(path,
    ("-o %s -D %s -w '%%{http_code}' %s"):format(body, head, arguments or ""))))
  local status, exit = text:match("(%d+) (%d+)$")
  return tonumber(status), body, tonumber(exit), helper.output("cat " .. head .. " 2>/dev/null")
end

function gateway:json(path, arguments)
  local status, body, _, head = self:curl(path, arguments)
  return status, helper.json.decode(helper.read_file(body)), head
end

function gateway:upload(file, query, arguments)
  return self:json(("%s?file_name=%s%s"):format(DOCUMENTS, NAME, query or ""),
    ("-X POST -T %s %s"):format(file, arguments or ""))
end

-- Send bytes over a new connection, then read until it ends or until the expected number of
-- responses has arrived.
local RAW = [[
  local socket = require "cqueues.socket"
  local path, file, response_count = ...
  local connection = socket.connect { path = path }
  connection:setmode("bn", "bn")
  connection:settimeout(20)
  connection:onerror(function(_, _, why) return why end)
  connection:write(assert(io.open(file, "rb")):read("*a"))
  local text, count = "", 0
  repeat
    local bytes = connection:read(-4096)
    text = text .. (bytes or "")
    _, count = text:gsub("HTTP/1%.1 %d", "")
  until not bytes or count == tonumber(response_count) and text:find("}\n[\r0\n]*$")
  print(count)
  print(text)
]]

function gateway:raw(bytes, response_count)
  local script = helper.write_file(helper.temporary(".lua"), RAW)
  local file = helper.write_file(helper.temporary(".raw"), bytes)
  local text = helper.output(("luajit %s %s %s %d"):format(script, self.socket, file, response_count))
  return tonumber(text:match("^%d+")), text
end

function gateway:worker()
  local master = helper.read_file(self.logs .. "/nginx.pid"):match("%d+")
  return helper.output("pgrep -P " .. master):match("%d+")
end

function gateway:peak()
  return tonumber(helper.read_file("/proc/" .. self:worker() .. "/status"):match("VmHWM:%s*(%d+)"))
end

local function post(path, bytes, length)
  return ("POST %s?file_name=%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"):format(path, NAME,
    length or #bytes, bytes)
end

local GET = "GET " .. DOCUMENTS .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"

local function document(size)
  return helper.admin("POST", "documents", { patient = PATIENT, file_name = NAME, content_type = "application/pdf",
                                             size = size })
end

local function path_of(id)
  return DOCUMENTS .. "/" .. id
end

local function connections()
  return helper.admin("GET", "state").connections
end

-- Reset everything except the tokens: a 401 for an old token would use up a fault that is planned
-- for another request.
local function clean()
  helper.admin("DELETE", "faults")
  helper.admin("DELETE", "journal")
  for _, found in ipairs(helper.stored(PATIENT)) do
    helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(PATIENT, found.id))
  end
end

describe("examples/gateway #nginx #gateway", function()
  local server
  local ids = {} -- of the uploaded documents

  setup(function()
    helper.reset()
    server = start(ROOT, helper.sandbox())
    assert(server.logs, helper.read_file(server.out))
  end)

  teardown(function() if server then server:stop() end end)
  before_each(clean)

  it("uploads, lists, shows and deletes", function()
    local status, created, head = server:upload("spec/fixtures/referral.pdf", "&document_type=Referral&description=a%20b")
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
      local status, created = server:upload(file)
      assert.equal(201, status)
      assert.equal(helper.sha256(file), helper.stored(PATIENT)[1].sha256)
      local fetched, body, exit, head = server:curl(path_of(created.id) .. "/content")
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
      assert.equal(415, (server:upload(helper.big_file(size))))
      assert.equal(0, #helper.journal("upload"))
    end
  end)

  it("passes an empty and a one-byte document on", function()
    local empty = helper.admin("POST", "documents", { patient = PATIENT, file_name = NAME, content = "" }).id
    local status, nothing, ended, head = server:curl(path_of(empty) .. "/content")
    assert.equal(200, status)
    assert.equal(0, ended)
    assert.equal("", helper.read_file(nothing))
    assert.matches("\ncontent%-length: 0\r", head:lower())
    local id = helper.admin("POST", "documents", { patient = PATIENT, file_name = NAME, content = "%" }).id
    local _, body, exit = server:curl(path_of(id) .. "/content")
    assert.equal(0, exit)
    assert.equal("%", helper.read_file(body))
  end)

  it("refuses more than 25 MB, and a document of unknown length, before it is sent", function()
    local file = helper.big_file(LARGEST + 1)
    local sent = helper.output(server:command(DOCUMENTS .. "?file_name=a.pdf",
      "-X POST -o /dev/null -w '%{http_code} %{size_upload}' -T " .. file))
    assert.equal("413 0", sent)
    assert.equal(413, (server:upload(file, nil, "-H Expect:")))
    assert.equal(411, (server:upload(file, nil, "-H 'Transfer-Encoding: chunked'")))
    assert.same({}, helper.journal())
  end)

  it("refuses invalid requests, with a reason", function()
    local file = "spec/fixtures/referral.pdf"
    assert.equal(415, (server:upload(file, nil, "-H 'Content-Type: text/plain'")))
    assert.equal(400, (server:upload(file, "&name=x")))
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
    assert.equal(404, (failure("download", { status = 404 }, "GET", path_of("one") .. "/content")))
    helper.faults { operation = "upload", action = { lost_reply = "reset" } }
    status, err = server:upload("spec/fixtures/referral.pdf")
    assert.equal(502, status)
    assert.same({ kind = "network", outcome_unknown = true }, err)
  end)

  it("serves slow clients and a slow service", function()
    local file = helper.big_file(300000)
    local status, created = server:upload(file, nil, "--limit-rate 300k")
    assert.equal(201, status)
    helper.faults { operation = "download", action = { delay = 0.3, drip = 1000000 } }
    local _, body, exit = server:curl(path_of(created.id) .. "/content", "--limit-rate 300k")
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

  it("ends a stalled download whose client disconnects", function()
    local id = document(1000000).id
    helper.faults { operation = "download", action = { stall = 500000 } }
    hang_up("download", path_of(id) .. "/content")
  end)

  it("breaks off the client's transfer if the service's transfer breaks off", function()
    local id = document(1000000).id
    for _, action in ipairs { { cut = 500000 }, { reset = 500000 }, { cut = 500000, length = "chunked" },
                              { cut = 999999 }, { cut = 999999, length = "chunked" },
                              { remapped_length = true, length_delta = -1 } } do
      helper.faults { operation = "download", action = action }
      local status, _, exit = server:curl(path_of(id) .. "/content")
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
    local id = document(1000).id
    helper.faults { operation = "download", action = { length = "chunked" } }
    assert.equal(505, (server:curl(path_of(id) .. "/content", "--http1.0")))
    assert.equal(200, (server:curl(path_of(id) .. "/content", "--http1.0")))
  end)

  it("does not parse a refused document as a request", function()
    helper.faults { operation = "upload", action = { early_status = 403 } }
    local body = "%PDF-1.4\n" .. GET:rep(30000)
    local count, text = server:raw(post(DOCUMENTS, body) .. GET, 2)
    assert.equal(2, count, text)
    assert.matches("HTTP/1.1 502 .*HTTP/1.1 200 ", text)
    -- refused by the gateway itself, before it has read any byte
    count, text = server:raw(post("/patients/p/other", body) .. GET, 2)
    assert.equal(2, count)
    assert.matches("HTTP/1.1 404 .*HTTP/1.1 200 ", text)
  end)

  it("logs neither id, name nor secret", function()
    local created = select(2, server:upload("spec/fixtures/referral.pdf"))
    ids[#ids + 1] = created.id
    server:curl(path_of(created.id) .. "/content")
    server:raw("GET " .. path_of("x") .. " HTTP/1.1\r\nbroken " .. NAME .. "\r\n\r\n", 1)
    server:raw("GET " .. path_of(("x"):rep(20000)) .. " HTTP/1.1\r\nHost: localhost\r\n\r\n", 1)
    local log = server:log()
    assert.matches(" upload 201 ", log)
    assert.matches(" download 200 ", log)
    assert.matches("nymbl: %l+: forbidden 403", log)
    local sandbox = helper.sandbox()
    local words = { PATIENT, "patients", "anna", sandbox.api_key, sandbox.client_id, sandbox.client_secret,
                    sandbox.base_url, helper.header(helper.journal("upload")[1], "authorization"):match("%S+$") }
    for _, word in ipairs(words) do assert.is_nil(log:lower():find(word:lower(), 1, true), word) end
    for _, id in ipairs(ids) do assert.is_nil(log:find(id, 1, true)) end
  end)

  describe("with one worker, short timeouts and a mistake in it", function()
    local small

    setup(function()
      local folder = helper.temporary("-copy")
      os.execute(([[
        set -e
        mkdir -p FOLDER/examples/gateway FOLDER/spec
        ln -s ROOT/lua ROOT/build-jit FOLDER
        ln -s ROOT/spec/packages FOLDER/spec
        cd ROOT/examples/gateway
        cp run FOLDER/examples/gateway
        sed 's/worker_processes auto/worker_processes 1/; s/read_timeout 30s/read_timeout 1s/' \
          nginx.conf >FOLDER/examples/gateway/nginx.conf
        sed 's/^local function get()$/& error(ngx.var.document)/' gateway.lua >FOLDER/examples/gateway/gateway.lua
      ]]):gsub("%u+", { FOLDER = quote(folder), ROOT = quote(ROOT) }))
      small = start(folder, helper.sandbox())
      assert(small.logs, helper.read_file(small.out))
    end)

    teardown(function() if small then small:stop() end end)

    it("holds no document in memory", function()
      local file = helper.big_file(LARGEST)
      local warm = helper.big_file(1000)
      small:curl(path_of(select(2, small:upload(warm)).id) .. "/content")
      local before = small:peak()
      local status, created = small:upload(file)
      assert.equal(201, status)
      local body = select(2, small:curl(path_of(created.id) .. "/content"))
      assert.equal(helper.sha256(file), helper.sha256(body))
      local _, _, exit = small:curl(path_of(created.id) .. "/content", "--limit-rate 1k --max-time 0.5")
      assert.equal(28, exit)
      local grown = small:peak() - before
      assert(grown < 6000, grown .. " kB")
    end)

    it("gives up on a client that stops in the middle of an upload", function()
      local before = connections()
      local _, text = small:raw(post(DOCUMENTS, "%PDF-1.4\n" .. ("x"):rep(100000), 200000), 2)
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
      local own = start(ROOT)
      local text = helper.read_file(own.out)
      assert(own.logs, text)
      local commands, id = {}, nil
      for command in text:gmatch("\n  (curl [^\n]+)") do
        commands[#commands + 1] = command
        command = command:gsub("copy.pdf", "/dev/null"):gsub("/ID", "/" .. (id or ""))
        local said = helper.output(("cd %s && %s -s -f; echo $?"):format(quote(ROOT), command))
        assert.matches("0$", said, 1, false)
        id = id or said:match('"id":"([^"]+)"')
      end
      assert.equal(5, #commands)
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
        script, quote(ROOT), helper.temporary(".out")))
      assert.equal(tostring(128 + 15), status)
      assert.equal("", left_over(temporary))
    end)

    it("reports why it does not start, without a secret", function()
      local sandbox = { base_url = "https://127.0.0.1:1", api_key = "a-secret-key", token_url = "ftp://127.0.0.1",
                        client_id = "c", client_secret = "another-secret", scope = "s",
                        ca_file = "/dev/null" }
      local own = start(ROOT, sandbox)
      local text = helper.read_file(own.out)
      own:stop()
      assert.matches("token_url", text)
      assert.matches("gateway: nginx did not start\n$", text)
      assert.is_nil(text:find("secret", 1, true))
      assert.equal("", left_over(own.temporary))
    end)
  end)
end)
