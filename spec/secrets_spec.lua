-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Secrets, ids, names and contents must not appear in anything that may be logged.

local helper = require "helper"
local nymbl = require "nymbl"

local LUA = jit and "luajit" or "lua" .. _VERSION:match("%d.%d")

local PATIENT, ID, FILE = "SENTINEL-patient", "SENTINEL-document", "SENTINEL-file.pdf"
local TYPE, DESCRIPTION = "SENTINEL-type", "SENTINEL-description"
local CONTENT = "%PDF-1.4\nSENTINEL-content\n" .. ("more of it\n"):rep(30000)
local WORDS = '{"error":{"code":"SENTINEL-code","message":"SENTINEL-words","details":"SENTINEL-details"}}'

local client, patient, document, token, secrets, events

-- The position of a secret in a text, or nil.
local function found(text)
  if text:find("SENTINEL", 1, true) or text:find("sentinel", 1, true) then return "a sentinel" end
  for name, secret in pairs(secrets) do
    if text:find(secret, 1, true) then return name end
  end
end

local function clean(text, what)
  assert.equal("string", type(text), what)
  assert.is_nil(found(text), (what or "text") .. ": " .. text:sub(1, 300))
  return text
end

-- All strings that can be reached from a value without the debug library.
local function dump(value, seen, out, path)
  seen, out, path = seen or {}, out or {}, path or "value"
  local kind = type(value)
  if kind == "string" then
    out[#out + 1] = path .. " = " .. value
  elseif (kind == "table" or kind == "userdata") and not seen[value] then
    seen[value] = true
    local ok, text = pcall(tostring, value)
    if ok then out[#out + 1] = path .. " shows " .. text end
    dump(getmetatable(value), seen, out, path .. "<meta>")
    pcall(function()
      for key, item in pairs(value) do
        dump(key, seen, out, path .. ".key")
        dump(item, seen, out, path .. "." .. tostring(key))
      end
    end)
    if kind == "table" then
      for key, item in next, value do
        dump(key, seen, out, path .. ".key")
        dump(item, seen, out, path .. "." .. tostring(key))
      end
    end
  end
  return out
end

local function dump_clean(value, what)
  for _, line in ipairs(dump(value)) do clean(line, what) end
end

local function expose(err)
  if type(err) == "table" then
    clean(tostring(err), "tostring")
    clean("x" .. err, "concatenation")
    for name, value in pairs(err) do
      if name ~= "detail" and name ~= "code" then clean(tostring(value), name) end
    end
  else
    clean(tostring(err), "raised")
  end
  return err
end

local function setup_client(options)
  local given = {
    rate = false, monthly_quota = false, max_attempts = 1, stall_timeout = 1,
    on_event = function(event) events[#events + 1] = event end,
  }
  for name, value in pairs(options or {}) do given[name] = value end
  client = helper.client(given)
  patient = client:patient(PATIENT)
  document = patient:document(ID)
end

local function setup_all()
  local sandbox = helper.sandbox()
  helper.reset()
  events = {}
  token = helper.token()
  secrets = {
    api_key = sandbox.api_key, client_id = sandbox.client_id, client_secret = sandbox.client_secret,
    scope = sandbox.scope, token = token, base_url = sandbox.base_url, token_url = sandbox.token_url,
    port = sandbox.base_url:match(":%d+$"),
  }
  setup_client()
  helper.admin("POST", "documents", {
    patient = PATIENT, id = ID, file_name = FILE, document_type = TYPE, description = DESCRIPTION, content = CONTENT,
    content_type = "application/pdf",
  })
end

local function teardown_all()
  client:close()
  client, patient, document, events = nil, nil, nil, nil
  assert.equal(0, helper.object_count())
end

local function fault(operation, action)
  helper.faults { operation = operation, action = action, times = -1 }
end

local function upload_options()
  return { file_name = FILE, document_type = TYPE, description = DESCRIPTION }
end

-- One call of each kind; each may fail.
local CALLS = {
  get = { function() return patient:get(ID) end, function() return document:refresh() end },
  list = {
    function() return patient:page { filter = "description eq 'SENTINEL-filter'" } end,
    function() return patient:count("description eq 'SENTINEL-filter'") end,
    function() for _ in patient:documents { filter = "id ne 'SENTINEL-filter'", orderby = "file_name" } do end end,
  },
  download = {
    function() return document:download(helper.folder .. "/SENTINEL-path.pdf") end,
    function() return document:download(function() return 1 end) end,
    function()
      local stream, err = document:open()
      if not stream then return nil, err end
      clean(tostring(stream), "stream")
      dump_clean(stream, "stream")
      local all
      all, err = stream:read("a")
      stream:close()
      return all, err
    end,
    function()
      local stream, err = document:open()
      if not stream then return nil, err end
      for _ in stream:lines() do end
    end,
  },
  delete = { function() return document:delete() end },
  upload = {
    function() return patient:upload({ data = CONTENT }, upload_options()) end,
    function()
      local i = 0
      return patient:upload(function()
        i = i + 1
        if i < 20 then return CONTENT end
      end, upload_options())
    end,
  },
}

-- Make a call and check all of its output.
local function try(call)
  local ok, value, err = xpcall(call, function(raised)
    clean(debug.traceback("x"), "traceback")
    return raised
  end)
  if not ok then
    expose(value)
    return value
  elseif value == nil and err ~= nil then
    expose(err)
    return err
  end
end

local function try_all(operation)
  local failures = 0
  for _, call in ipairs(CALLS[operation]) do
    if try(call) then failures = failures + 1 end
  end
  return failures
end

describe("an object", function()
  setup(setup_all)
  teardown(teardown_all)

  it("shows its class and state only", function()
    local stream = assert(document:open())
    stream:read()
    local got = assert(patient:get(ID))
    local made = assert(patient:upload({ data = CONTENT }, upload_options()))
    for object, expected in pairs { [client] = "nymbl.client", [patient] = "nymbl.patient",
      [document] = "nymbl.document",
                                    [got] = "nymbl.document", [made] = "nymbl.document", [stream] = "nymbl.stream" } do
      assert.equal(expected, tostring(object))
      dump_clean(object, expected)
      assert.equal("string", type(getmetatable(object)))
      for i = -2, 20 do assert.is_nil(object[i]) end
      for _, name in ipairs { "env", "state", "token", "api_key", "secret", "client", "credentials", "options",
        "transfer",
                              "methods", "__index", "__gc", "_", "data", "body", "url", "base_url" } do
        assert.is_nil(object[name], expected .. "." .. name)
      end
      assert.is_nil(object[object])
      assert.is_nil(object[true])
      assert.is_false((pcall(setmetatable, object, {})))
      assert.is_false((pcall(function() object.x = 1 end)))
    end
    stream:close()
    dump_clean(stream, "a closed stream")
    made:delete()
  end)

  it("has no fields of the other classes in patient and stream", function()
    assert.is_nil(patient.patient_id)
    assert.is_nil(client.id)
    local stream = assert(document:open())
    assert.is_nil(stream.id)
    assert.is_nil(stream.patient_id)
    assert.is_nil(stream.file_name)
    stream:close()
  end)

  it("and the modules have no secret that can be reached", function()
    local kept = { client, patient, document, assert(document:open()), assert(patient:get(ID)), patient:page() }
    try_all "download"
    local modules = {}
    for name, module in pairs(package.loaded) do
      if name:find("^nymbl") then modules[name] = module end
    end
    assert.truthy(modules["nymbl.core"])
    dump_clean(modules, "modules")
    dump_clean(kept, "objects")
    kept[4]:close()
  end)

  it("of an iteration has nothing that can be reached", function()
    local function values(...)
      local held
      for i = 1, select("#", ...) do
        for _, line in ipairs(dump((select(i, ...)))) do
          for _, name in ipairs { "api_key", "client_id", "client_secret", "token" } do
            assert.is_nil(line:find(secrets[name], 1, true))
          end
          held = held or found(line) and line:match("^(.-) = ")
        end
      end
      return held
    end
    local step, state, control, closing = patient:documents { filter = "id ne 'SENTINEL-filter'" }
    local before = values(step, state, control, closing)
    step(state, control)
    local after = values(step, state, control, closing)
    if before or after then
      pending("listing.lua: the state of patient:documents() is a plain table: " .. (before or after) .. " can be read")
    end
    assert.is_nil(before or after)
  end)
end)

describe("a failed call", function()
  before_each(setup_all)
  after_each(teardown_all)

  it("shows nothing if the service refuses", function()
    for operation, calls in pairs(CALLS) do
      for _, status in ipairs { 400, 401, 403, 404, 413, 415, 418, 500, 503 } do
        fault(operation, { status = status, body = WORDS, content_type = "application/json" })
        assert.equal(#calls, try_all(operation))
      end
    end
    fault("get", { status = 429, body_kind = "gateway", message = "SENTINEL-words" })
    assert.equal(2, try_all "get")
  end)

  it("shows nothing if the response is malformed or breaks off", function()
    for operation in pairs(CALLS) do
      for _, action in ipairs {
        { status = 200, body = "SENTINEL-words", content_type = "text/html" },
        { status = 200, body = '{"SENTINEL":"SENTINEL"}', content_type = "application/json" },
        { raw = "HTTP/1.1 200 SENTINEL\r\nSENTINEL-header\r\n\r\nSENTINEL" }, { raw = "SENTINEL\r\n\r\n" },
        { raw = "HTTP/1.1 SENTINEL\r\nContent-Length: SENTINEL\r\n\r\n" },
        { before = "reset" }, { after = "close" }, { cut = 5 }, { close_notify = 5 }, { reset = 5 }, { gzip = true },
        { redirect = { status = 302, location = "https://SENTINEL.example.invalid/SENTINEL-path?SENTINEL=1" } },
        { redirect = { status = 302, location = "http://localhost/SENTINEL" } },
        { redirect = { status = 302, location = "SENTINEL://SENTINEL" } },
        { header_flood = 100000 },
      } do
        fault(operation, action)
        try_all(operation)
      end
    end
    for _, action in ipairs { { cut = 200000 }, { close_notify = 200000 }, { reset = 200000 }, { chunk_cut = 200000 },
                              { stall = 200000 }, { base64 = true }, { truncate = 5 }, { length_delta = 5 },
                              { json_instead = true } } do
      fault("download", action)
      try_all "download"
    end
    fault("get", { body_patch = { id = "SENTINEL-other" } })
    assert.equal(2, try_all "get")
    fault("get", { body_patch = { patient_id = "SENTINEL-other" } })
    assert.equal(2, try_all "get")
  end)

  it("shows nothing if the network or the token fails", function()
    for _, options in ipairs {
      { base_url = "https://127.0.0.1:9", token = "SENTINEL-token" },
      { base_url = "https://sentinel.invalid/SENTINEL-prefix", token = "SENTINEL-token", connect_timeout = 2 },
      { ca_file = helper.write_file(helper.temporary("SENTINEL.pem"), "SENTINEL"), token = "SENTINEL-token" },
      { proxy = "http://SENTINEL:SENTINEL@127.0.0.1:9", token = "SENTINEL-token" },
      { token = "SENTINEL-token" },
      { token = function() return nil, "SENTINEL-token failed" end },
      { token = function() return "SENTINEL bad token" end },
      { token = function() return nil, { "SENTINEL" } end },
      { api_key = "SENTINEL-key", token = token },
      { user_agent = "SENTINEL-agent", token = token, base_url = "https://127.0.0.1:9" },
    } do
      client:close()
      setup_client(options)
      assert.equal(2, try_all "get")
      try_all "upload"
      try_all "download"
      clean(tostring(client), "client")
      dump_clean(client, "client")
    end
    for _, action in ipairs { { status = 400, body_kind = "token", message = "SENTINEL-code" },
                              { status = 200, body = "SENTINEL", content_type = "application/json" },
                              { status = 200, body = '{"access_token":"SENTINEL token"}',
                                content_type = "application/json" },
                              { status = 500, body = WORDS, content_type = "application/json" },
                                { before = "reset" } } do
      client:close()
      setup_client()
      fault("token", action)
      assert.equal(2, try_all "get")
    end
  end)

  it("shows nothing if a file, source, sink or function fails", function()
    local folder = helper.folder
    for _, call in ipairs {
      function() return patient:upload("/nowhere/SENTINEL.pdf") end,
      function() return patient:upload(folder .. "/SENTINEL-missing.pdf") end,
      function() return patient:upload(folder, { file_name = FILE }) end,
      function() return patient:upload({ data = "SENTINEL-content" }, { file_name = "SENTINEL.exe" }) end,
      function() return patient:upload({ data = "SENTINEL-content" }, { file_name = "SENTINEL" }) end,
      function() return patient:upload({ data = "x" }, { file_name = FILE, content_type = "text/SENTINEL" }) end,
      function() return patient:upload(function() return nil, "SENTINEL-source" end, { file_name = FILE }) end,
      function() return patient:upload(function() return 5 end, { file_name = FILE }) end,
      function() return document:download("/nowhere/SENTINEL.pdf") end,
      function() return document:download(folder) end,
      function() return document:download(helper.write_file(folder .. "/SENTINEL-there", "x"),
        { overwrite = false }) end,
      function() return document:download(function() return nil, "SENTINEL-sink" end) end,
      function() return document:download(function() return 1 end, { progress = function() return false end }) end,
    } do
      assert.truthy(try(call))
    end
  end)

  it("shows nothing if it is misused", function()
    local long = ("SENTINEL"):rep(20000)
    for _, call in ipairs {
      function() return client:patient("SENTINEL\0") end,
      function() return client:patient(long):count() end,
      function() return patient:get(long) end,
      function() return patient:count(long) end,
      function() return patient:page { select = { long } } end,
      function() return patient:page { orderby = "SENTINEL\0" } end,
      function() return patient:page { [1] = "SENTINEL" } end,
      function() return patient:page("SENTINEL") end,
      function() return patient:upload({ data = "SENTINEL" }) end,
      function() return patient:upload({ "SENTINEL" }, { file_name = FILE }) end,
      function() return patient:upload({ data = "x" }, { file_name = "SENTINEL\r\n" }) end,
      function() return patient:upload({ data = "x" }, { file_name = long .. ".pdf", description = "SENTINEL\0" }) end,
      function() return document:download("SENTINEL\0") end,
      function() return nymbl.client("SENTINEL") end,
      function() return nymbl.client { "SENTINEL" } end,
      function() return nymbl.client(helper.options { api_key = "SENTINEL\n" }) end,
      function() return nymbl.client(helper.options { token = "SENTINEL\n" }) end,
      function() return nymbl.client(helper.options { base_url = "https://SENTINEL:SENTINEL@x" }) end,
      function() return nymbl.client(helper.options { base_url = "SENTINEL" }) end,
      function() return nymbl.client(helper.options { credentials = { "SENTINEL" } }) end,
      function() return nymbl.client(helper.options { credentials = { client_secret = "SENTINEL" } }) end,
      function() return nymbl.filter("SENTINEL ?", {}) end,
      function() return nymbl.filter("SENTINEL '", 5) end,
    } do
      assert.truthy(try(call))
    end
  end)
end)

describe("an event", function()
  before_each(setup_all)
  after_each(teardown_all)

  it("contains nothing that identifies a patient or document", function()
    for _, operation in ipairs { "get", "list", "upload", "download", "delete" } do
      try_all(operation)
      fault(operation, { status = 500, body = WORDS, content_type = "application/json" })
      try_all(operation)
      helper.faults()
    end
    assert.is_true(#events >= 20)
    dump_clean(events, "events")
  end)
end)

describe("a program", function()
  before_each(setup_all)
  after_each(teardown_all)

  -- Run a script with a client of the sandbox. Returns all of its output.
  local function run(body)
    local options = helper.options { rate = false, monthly_quota = false, max_attempts = 1 }
    local script = helper.write_file(helper.temporary(".lua"), ([[
      package.path, package.cpath = %q, %q
      local nymbl = require "nymbl"
      local options = { base_url = %q, api_key = %q, ca_file = %q, rate = false, monthly_quota = false,
        max_attempts = 1,
        timeout = 60, credentials = { token_url = %q, client_id = %q, client_secret = %q, scope = %q } }
      local client = assert(nymbl.client(options))
      local patient = client:patient(%q)
      local document = patient:document(%q)
      %s
    ]]):format(package.path, package.cpath, options.base_url, options.api_key, options.ca_file,
      options.credentials.token_url, options.credentials.client_id, options.credentials.client_secret,
      options.credentials.scope, PATIENT, ID, body))
    local out = helper.temporary(".out")
    os.execute(("%s %s > %s 2>&1"):format(LUA, helper.quote(script), helper.quote(out)))
    return helper.read_file(out)
  end

  local FAILURES = [[
    io.stdout:setvbuf "no"
    local function show(...)
      for i = 1, select("#", ...) do io.write(tostring((select(i, ...))), "\t") end
      print()
    end
    local function try(call) show(pcall(call)) end
    try(function() return select(2, patient:get("SENTINEL-other")) end)
    try(function() return patient:get({}) end)
    try(function() return patient:page { filter = "SENTINEL eq 1" } end)
    try(function() return select(2, patient:upload("/nowhere/SENTINEL.pdf")) end)
    try(function() return select(2, patient:upload({ data = "SENTINEL" }, { file_name = "SENTINEL.exe" })) end)
    try(function() return patient:upload({ data = "%PDF-1.4 SENTINEL" }, { file_name = "SENTINEL.pdf" }) end)
    try(function() return document:download(function() error "mine" end) end)
    try(function() return document:open() end)
    try(function() return document:delete() end)
    try(function() return select(2, document:refresh()) end)
    local wrong = nymbl.client { base_url = options.base_url, api_key = "SENTINEL", ca_file = options.ca_file,
      token = "SENTINEL" }
    try(function() return select(2, wrong:patient("SENTINEL"):get("SENTINEL")) end)
    wrong:close()
    show(client, patient, document, wrong)
  ]]

  it("prints nothing by itself", function()
    local out = run [[
      local made = assert(patient:upload({ data = "%PDF-1.4 SENTINEL" }, { file_name = "SENTINEL.pdf" }))
      for d in patient:documents() do assert(d.id) end
      assert(made:download(os.tmpname()))
      assert(made:delete())
      patient:get("SENTINEL-other")
      client:close()
    ]]
    assert.equal("", out)
  end)

  it("that prints all its errors and objects shows no secret", function()
    local out = run(FAILURES)
    assert.truthy(out:find("not_found 404", 1, true), out)
    assert.truthy(out:find("bad argument #1 to 'get'", 1, true))
    assert.truthy(out:find("nymbl.client (closed)", 1, true))
    clean(out, "output")
  end)

  it("that ends with an error shows no secret", function()
    for _, last in ipairs {
      [[assert(patient:get("SENTINEL-other"))]],
      [[error(select(2, patient:get("SENTINEL-other")))]],
      [[for _ in patient:documents { filter = "SENTINEL eq 1" } do end]],
      [[patient:upload("SENTINEL.pdf", { SENTINEL = nil, tiemout = 1 })]],
      [[nymbl.client { base_url = options.base_url, api_key = options.api_key .. "\n", token = "SENTINEL" }]],
      [[error("could not load: " .. select(2, patient:get("SENTINEL-other")))]],
      [[client:close() patient:get("SENTINEL")]],
    } do
      local out = run(last)
      assert.truthy(out:find(LUA, 1, true), out) -- "lua5.4: nymbl: not_found 404 ..."
      -- a traceback has the script's name, but no line of its code
      clean((out:gsub("[^%s]*" .. helper.folder:gsub("%p", "%%%0") .. "[^%s:]*", "")), "output")
    end
  end)

  it("passes no connection on to the programs that it starts", function()
    local checker = helper.write_file(helper.temporary(".sh"), [[
      for fd in /proc/$$/fd/*; do readlink "$fd"; done | sed -n 's/^socket:.\([0-9]*\).$/\1/p' |
        while read inode; do cat /proc/net/tcp /proc/net/tcp6 | grep " $inode "; done
      echo checked
    ]])
    local out = run(([[
      local stream = assert(document:open())
      stream:read()
      os.execute("sh " .. %q)
      stream:close()
    ]]):format(checker))
    assert.equal("checked\n", out)
  end)
end)
