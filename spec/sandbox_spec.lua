-- SPDX-License-Identifier: MIT
-- The sandbox server in examples/sandbox, tested with curl.

local cjson = require "cjson"

local root = debug.getinfo(1, "S").source:match "^@(.*)/spec/[^/]*$" or "."
local env = {}
local folder, token

local PDF = "%PDF-1.4\nhello\n"

-- Shell ------------------------------------------------------------------------------------------

local function quote(s)
  return "'" .. tostring(s):gsub("'", "'\\''") .. "'"
end

local function shell(command)
  local pipe = assert(io.popen(command, "r"))
  local output = pipe:read "*a"
  pipe:close()
  return output
end

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then
    return ""
  end
  local bytes = file:read "*a"
  file:close()
  return bytes
end

local function write_file(name, bytes)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

local function start(options, environment)
  local out = folder .. "/sandbox.out"
  local pid = shell(("%s %s/examples/sandbox/run %s </dev/null >%s 2>%s/sandbox.err & echo $!")
    :format(environment or "", quote(root), options, out, folder)):match "%d+"
  for _ = 1, 200 do
    local text = read_file(out)
    if text:find "\nready\n" then
      local found = { pid = pid }
      for name, value in text:gmatch "NYMBL_([%w_]+)=([^\n]*)" do
        found[name] = value
      end
      return found
    end
    os.execute "sleep 0.05"
  end
  error("the sandbox did not start: " .. read_file(folder .. "/sandbox.err"))
end

local function alive(pid)
  return shell(("kill -0 %d 2>/dev/null && echo yes"):format(pid)) == "yes\n"
end

local function stop(pid)
  os.execute(("kill %d"):format(pid))
  for _ = 1, 200 do
    if not alive(pid) then
      return true
    end
    os.execute "sleep 0.05"
  end
  return false
end

-- HTTP -------------------------------------------------------------------------------------------

local function head_parse(text)
  local headers = {}
  for name, value in text:gmatch "\n([^%s:]+): *([^\r\n]*)" do
    headers[name:lower()] = value
  end
  return headers
end

--- Run curl once. Returns its exit code, the status, headers and body.
local function curl(arguments)
  local head, body = folder .. "/head", folder .. "/body"
  os.remove(head)
  os.remove(body)
  local text = shell(("curl -sS -m 20 --cacert %s -D %s -o %s -w '%%{http_code}' %s 2>%s/curl.err; echo \" $?\"")
    :format(quote(env.CA_FILE), head, body, arguments, folder))
  local status, code = text:match "(%d+) (%d+)\n$"
  local response = {
    status = tonumber(status), code = tonumber(code), head = read_file(head), body = read_file(body),
    problem = read_file(folder .. "/curl.err"),
  }
  response.headers = head_parse(response.head)
  return response
end

local function admin_response(method, path, value)
  local data = ""
  if value ~= nil then
    local text = type(value) == "string" and value or cjson.encode(value)
    data = " --data-binary @" .. write_file("admin.json", text)
  end
  return curl(("-X %s -H 'x-sandbox-key: %s'%s %s"):format(method, env.SANDBOX_ADMIN_KEY, data,
    quote(env.SANDBOX_ADMIN .. "/" .. path)))
end

local function admin(method, path, value)
  local response = admin_response(method, path, value)
  assert.equal(0, response.code, response.problem)
  assert.is_true(response.status < 300, response.body)
  return cjson.decode(response.body)
end

local function credentials()
  return ("-H 'Authorization: Bearer %s' -H 'x-api-key: %s' "):format(token, env.API_KEY)
end

local function get(path, arguments)
  return curl(credentials() .. (arguments or "") .. " " .. quote(env.BASE_URL .. path))
end

local function encoded(s)
  return (s:gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function list(query)
  local parts = {}
  for name, value in pairs(query or {}) do
    parts[#parts + 1] = "$" .. name .. "=" .. encoded(tostring(value))
  end
  return get("/Patients(7)/Documents?" .. table.concat(parts, "&"))
end

local function names(response)
  assert.equal(200, response.status, response.body)
  local out = {}
  for i, row in ipairs(cjson.decode(response.body).value) do
    out[i] = row.id
  end
  return table.concat(out, " ")
end

local function upload(arguments, patient)
  return get(("/Patients(%s)/Documents"):format(patient or "7"), arguments)
end

local function upload_pdf(arguments)
  local path = write_file("letter.pdf", PDF)
  return upload(("-F file=@%s %s"):format(path, arguments or ""))
end

local function token_request(fields)
  local data = { grant_type = "client_credentials", client_id = env.CLIENT_ID,
    client_secret = env.CLIENT_SECRET, scope = env.SCOPE }
  for name, value in pairs(fields or {}) do
    data[name] = value
  end
  local arguments = {}
  for name, value in pairs(data) do
    arguments[#arguments + 1] = "--data-urlencode " .. quote(name .. "=" .. value)
  end
  return curl(table.concat(arguments, " ") .. " " .. env.TOKEN_URL)
end

local function token_new()
  token = cjson.decode(token_request().body).access_token
end

local function fault(action, plan)
  plan = plan or {}
  plan.action = action
  admin("POST", "faults", { plan })
end

local function document(fields)
  fields.patient = fields.patient or "7"
  return admin("POST", "documents", fields)
end

local function journal()
  return admin("GET", "journal").requests
end

local function last()
  local entries = journal()
  return entries[#entries]
end

local function value_of(id, arguments)
  return get(("/Patients(7)/Documents(%s)/$value"):format(id), arguments)
end

local function one_of(wanted, actual)
  for _, value in ipairs(wanted) do
    if value == actual then
      return true
    end
  end
  return false, ("got %s"):format(tostring(actual))
end

describe("the sandbox #sandbox", function()
  setup(function()
    folder = shell("mktemp -d"):match "%S+"
    env = start "--limits off"
  end)

  teardown(function()
    assert.is_true(stop(env.pid))
    assert.equal("", read_file(folder .. "/sandbox.err"))
    os.execute("rm -rf " .. quote(folder))
  end)

  before_each(function()
    admin("POST", "reset")
    token_new()
    admin("DELETE", "journal")
  end)

  describe("following the documentation", function()
    it("uploads, lists, shows, downloads and deletes a document", function()
      local made = upload_pdf "-F document_type=Referral -F 'description=From Dr. Smith'"
      assert.equal(201, made.status)
      local doc = cjson.decode(made.body)
      assert.truthy(doc.id:find "^doc%-")
      assert.equal("7", doc.patient_id)
      assert.equal("letter.pdf", doc.file_name)
      assert.equal("application/pdf", doc.content_type)
      assert.equal(#PDF, doc.file_size_bytes)
      assert.equal("Referral", doc.document_type)
      assert.equal("From Dr. Smith", doc.description)
      assert.truthy(doc.uploaded_at:find "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$")

      local listed = cjson.decode(list { count = "true" }.body)
      assert.equal(env.BASE_URL .. "/$metadata#Documents", listed["@odata.context"])
      assert.equal(1, listed["@odata.count"])
      assert.equal(doc.id, listed.value[1].id)

      local shown = cjson.decode(get("/Patients(7)/Documents(" .. doc.id .. ")").body)
      assert.equal(env.BASE_URL .. "/$metadata#Documents/$entity", shown["@odata.context"])
      assert.equal("letter.pdf", shown.file_name)

      local bytes = value_of(doc.id)
      assert.equal(PDF, bytes.body)
      assert.equal("application/pdf", bytes.headers["content-type"])
      assert.equal(tostring(#PDF), bytes.headers["content-length"])
      assert.truthy(bytes.headers.etag:find '^"%x+"$')
      assert.truthy(bytes.headers["last-modified"])

      local path = "/Patients(7)/Documents(" .. doc.id .. ")"
      assert.equal(204, get(path, "-X DELETE").status)
      assert.equal(404, get(path, "-X DELETE").status)
      assert.equal("NotFound", cjson.decode(get(path).body).error.code)
    end)

    it("accepts the five types, by name and by signature, and an empty file", function()
      for name, bytes in pairs {
        ["a.pdf"] = PDF, ["a.png"] = "\137PNG\r\n\26\nx", ["a.jpg"] = "\255\216\255\224x",
        ["a.tiff"] = "II*\0x", ["a.docx"] = "PK\3\4x", ["empty.pdf"] = "",
      } do
        local kind = name:find "docx" and
          ";type=application/vnd.openxmlformats-officedocument.wordprocessingml.document" or ""
        kind = name:find "tiff" and ";type=image/tiff" or kind
        local response = upload("-F 'file=@" .. write_file(name, bytes) .. kind .. "'")
        assert.equal(201, response.status, name .. response.body)
      end
    end)

    it("refuses other types, and content that does not match its type", function()
      local text = write_file("a.txt", "hello")
      for _, kind in ipairs { "text/plain", "application/pdf" } do
        local response = upload(("-F 'file=@%s;type=%s'"):format(text, kind))
        assert.equal(400, response.status)
        assert.equal("UnsupportedFileType", cjson.decode(response.body).error.code)
      end
    end)

    it("refuses a file over the limit", function()
      admin("POST", "settings", { max_upload = 100 })
      assert.equal(201, upload("-F file=@" .. write_file("full.pdf", PDF .. ("x"):rep(100 - #PDF))).status)
      assert.equal(413, upload("-F file=@" .. write_file("over.pdf", PDF .. ("x"):rep(101 - #PDF))).status)
    end)

    it("carries 25 MB in both directions", function()
      local made = document { size = 26214400 }
      local path = folder .. "/large.pdf"
      assert.equal(0, value_of(made.id).code)
      os.rename(folder .. "/body", path)
      assert.equal(201, upload("-F file=@" .. path).status)
      assert.equal(made.sha256, last().fields[1].sha256)
      assert.equal(made.sha256, admin("GET", "documents?patient=7")[2].sha256)
    end)

    it("accepts any patient except missing ones", function()
      assert.equal(200, get("/Patients(nobody)/Documents").status)
      assert.equal(404, get("/Patients(missing-1)/Documents").status)
    end)

    it("decodes ids in the path", function()
      document { patient = "a/b c", id = "x)y/é", content = PDF }
      local response = get("/Patients(a%2Fb%20c)/Documents(x%29y%2F%C3%A9)")
      assert.equal(200, response.status)
      assert.equal("x)y/é", cjson.decode(response.body).id)
    end)

    it("serves ranges, conditional on If-Range", function()
      local id = document({ content = "0123456789" }).id
      local etag = value_of(id).headers.etag
      local part = value_of(id, "-H 'Range: bytes=4-' -H " .. quote("If-Range: " .. etag))
      assert.equal(206, part.status)
      assert.equal("456789", part.body)
      assert.equal("bytes 4-9/10", part.headers["content-range"])
      assert.equal("89", value_of(id, "-H 'Range: bytes=-2'").body)
      assert.equal(200, value_of(id, "-H 'Range: bytes=4-' -H 'If-Range: \"other\"'").status)
      assert.equal(416, value_of(id, "-H 'Range: bytes=10-'").status)
      admin("POST", "settings", { ranges = false })
      assert.equal(200, value_of(id, "-H 'Range: bytes=4-'").status)
    end)

    it("sends a document only if it meets the condition If-Match", function()
      local id = document({ content = "0123456789" }).id
      local etag = value_of(id).headers.etag
      for _, condition in ipairs { etag, '"other", ' .. etag, "*" } do
        local part = value_of(id, "-H 'Range: bytes=4-' -H " .. quote("If-Match: " .. condition))
        assert.equal("206 456789", part.status .. " " .. part.body)
      end
      assert.equal(412, value_of(id, "-H 'If-Match: \"other\"'").status)
    end)
  end)

  describe("refusing callers", function()
    local function message(response)
      return response.status .. " " .. cjson.decode(response.body).message
    end

    it("distinguishes bad tokens, expired tokens, bad keys and unknown paths", function()
      local path = quote(env.BASE_URL .. "/Patients(7)/Documents")
      local key, good = "-H 'x-api-key: " .. env.API_KEY .. "' ", "-H 'Authorization: Bearer " .. token .. "' "
      assert.equal("401 Unauthorized", message(curl(key .. path)))
      assert.equal("401 Unauthorized", message(curl(key .. "-H 'Authorization: Bearer abc' " .. path)))
      assert.equal("403 Forbidden", message(curl(good .. path)))
      assert.equal("403 Forbidden", message(curl(good .. "-H 'x-api-key: no' " .. path)))
      assert.equal("403 Missing Authentication Token", message(get "/nothing"))
      assert.equal("403 Missing Authentication Token", message(get("/Patients(7)/Documents", "-X PATCH")))
      assert.equal(403, get("/Patients(7)/Documents", "-I").status)
      admin("POST", "settings", { expire_tokens = true })
      assert.equal("401 The incoming token has expired", message(get "/Patients(7)/Documents"))
    end)

    it("answers bad token requests with one word", function()
      local function word(fields)
        local response = token_request(fields)
        assert.equal(400, response.status)
        return cjson.decode(response.body).error
      end
      assert.equal("invalid_client", word { client_secret = "no" })
      assert.equal("unsupported_grant_type", word { grant_type = "password" })
      assert.equal("invalid_scope", word { scope = "other" })
    end)

    it("issues tokens with the configured lifetime", function()
      admin("POST", "settings", { token_life = 7 })
      local response = cjson.decode(token_request().body)
      assert.equal(7, response.expires_in)
      assert.equal("Bearer", response.token_type)
      assert.truthy(response.access_token:find "^eyJraWQiOi[%w_-]+%.[%w_-]+%.[%w_-]+$")
    end)

    it("responds 429 after a burst, separately for reads and downloads", function()
      local id = document({ content = PDF }).id
      admin("POST", "settings", { limits = true, rate = { read = { 0.001, 5 }, download = { 0.001, 3 } } })
      for _ = 1, 5 do
        assert.equal(200, list().status)
      end
      local response = list()
      assert.equal("429 Too Many Requests", message(response))
      assert.is_nil(response.headers["retry-after"])
      for _ = 1, 3 do
        assert.equal(200, value_of(id).status)
      end
      assert.equal(429, value_of(id).status)
      assert.equal(200, token_request().status)
      assert.equal(8, admin("GET", "settings").quota_used)
    end)

    it("reports an exhausted monthly quota", function()
      admin("POST", "settings", { limits = true, quota = 100, quota_used = 99 })
      assert.equal(200, list().status)
      local response = list()
      assert.equal("429 Limit Exceeded", message(response))
      assert.equal("LimitExceededException", response.headers["x-amzn-errortype"])
    end)

    it("refuses before the body if the client waits for 100 Continue", function()
      local path = write_file("late.pdf", PDF .. ("x"):rep(2000000))
      local response = curl(("-H 'x-api-key: %s' -H 'Authorization: Bearer no' -H 'Expect: 100-continue' "
        .. "-F file=@%s %s"):format(env.API_KEY, path, quote(env.BASE_URL .. "/Patients(7)/Documents")))
      assert.equal(401, response.status)
      assert.equal(0, last().body_bytes)
      assert.is_false(last().complete)
      assert.equal(201, upload("-H 'Expect: 100-continue' -F file=@" .. path).status)
    end)
  end)

  describe("lists", function()
    before_each(function()
      document { id = "a", file_name = "one.pdf", document_type = "Referral", size = 10,
        uploaded_at = "2026-01-01T00:00:00Z" }
      document { id = "b", file_name = "two's.pdf", document_type = "Insurance", size = 30,
        uploaded_at = "2026-02-21T14:30:00Z", description = "x" }
      document { id = "c", file_name = "three.pdf", document_type = "Referral", size = 20,
        uploaded_at = "2026-02-21T14:30:00.5Z" }
    end)

    it("filter by comparison, logic and functions", function()
      for filter, wanted in pairs {
        ["document_type eq 'Referral'"] = "a c",
        ["document_type ne 'Referral'"] = "b",
        ["file_name eq 'two''s.pdf'"] = "b",
        ["file_size_bytes gt 10 and file_size_bytes le 30"] = "b c",
        ["id lt 'b' or id ge 'c'"] = "a c",
        ["not (id eq 'b')"] = "a c",
        ["(id eq 'a' or id eq 'b') and document_type eq 'Referral'"] = "a",
        ["id eq 'a' or id eq 'b' and document_type eq 'Referral'"] = "a",
        ["uploaded_at ge 2026-02-21T14:30:00Z"] = "b c",
        ["uploaded_at gt 2026-02-21T14:30:00Z"] = "c",
        ["uploaded_at eq 2026-02-21T15:30:00+01:00"] = "b",
        ["contains(file_name,'re')"] = "c",
        ["startswith(file_name,'t') and endswith(file_name,'s.pdf')"] = "b",
        ["description eq null"] = "a c",
        ["description ne null"] = "b",
        ["contains(file_name,'o') eq true"] = "a b",
      } do
        assert.equal(wanted, names(list { filter = filter }), filter)
      end
    end)

    it("refuse bad queries with a string of details", function()
      for _, query in ipairs {
        { filter = "invalid_field eq 1" }, { filter = "id eq" }, { filter = "id eq 'a" }, { filter = "id" },
        { filter = "id eq 5" }, { filter = "(id eq 'a'" }, { filter = "id = 'a'" }, { filter = "id eq 'a' id" },
        { filter = ("("):rep(2000) }, { filter = ("not "):rep(2000) .. "true" },
        { orderby = "nothing" }, { orderby = "id up" }, { select = "nothing" },
        { top = "-1" }, { top = "x" }, { skip = "1.5" }, { count = "maybe" }, { expand = "Patient" },
      } do
        local response = list(query)
        assert.equal(400, response.status, cjson.encode(query))
        local problem = cjson.decode(response.body).error
        assert.equal("InvalidFilter", problem.code)
        assert.equal("string", type(problem.details))
      end
    end)

    it("refuse targets that should have been encoded", function()
      for _, target in ipairs { "/Patients(7)/Documents?$filter=a|b", "/Patients(%zz)/Documents",
        "/Patients(7)/Documents?$top=1&$top=2" } do
        assert.is_true(one_of({ 400, 403 }, get(target, "-g --path-as-is").status), target)
      end
    end)

    it("sort by several keys", function()
      assert.equal("b c a", names(list { orderby = "document_type,file_size_bytes desc" }))
      assert.equal("c b a", names(list { orderby = "uploaded_at desc" }))
    end)

    it("contain only the selected fields", function()
      local row = cjson.decode(list { select = "file_name,document_type", top = 1 }.body).value[1]
      assert.same({ file_name = "one.pdf", document_type = "Referral" }, row)
    end)

    it("omit an empty description", function()
      local rows = cjson.decode(list().body).value
      assert.is_nil(rows[1].description)
      assert.equal("x", rows[2].description)
    end)

    it("have pages of at most 100 rows with the total count", function()
      admin("POST", "seed", { patient = "7", count = 247, prefix = "s" })
      local page = cjson.decode(list({ count = "true", top = 500, orderby = "id" }).body)
      assert.equal(250, page["@odata.count"])
      assert.equal(100, #page.value)
      assert.equal(50, #cjson.decode(list({ skip = 200, orderby = "id" }).body).value)
      assert.equal('"value":[]', list({ skip = 900 }).body:match '"value":%[%]')
      assert.equal(0, #cjson.decode(list({ top = 0 }).body).value)
      assert.is_nil(cjson.decode(list().body)["@odata.count"])
    end)

    it("page by link if configured", function()
      admin("POST", "settings", { next_link = true, page_max = 2, count = false })
      local first = cjson.decode(list({ count = "true", orderby = "id" }).body)
      assert.is_nil(first["@odata.count"])
      local second = cjson.decode(curl(credentials() .. quote(first["@odata.nextLink"])).body)
      assert.equal("c", second.value[1].id)
      assert.is_nil(second["@odata.nextLink"])
    end)

    it("of patients have those with documents, whose key is called id or patient_id", function()
      document { patient = "30" }
      document { patient = "4" }
      local response = get("/Patients?$orderby=id%20desc&$select=id&$count=true")
      assert.same({ { id = "7" }, { id = "4" }, { id = "30" } }, cjson.decode(response.body).value)
      assert.equal(3, cjson.decode(response.body)["@odata.count"])
      assert.same({ id = "4", active = true, first_name = cjson.null, last_name = cjson.null },
        cjson.decode(get("/Patients?$filter=id%20eq%20'4'").body).value[1])
      assert.equal(1, #cjson.decode(get("/Patients?$top=1&$skip=2").body).value)
      assert.equal(400, get("/Patients?$select=file_name").status)
      assert.equal(403, get("/Patients", "-X POST -d x").status)
      admin("POST", "settings", { patient_key = "patient_id", numeric_ids = true })
      assert.equal(400, get("/Patients?$select=id").status)
      assert.truthy(get("/Patients?$select=patient_id&$top=1").body:find('[{"patient_id":30}]', 1, true))
    end)

    it("serve 5000 documents", function()
      admin("POST", "seed", { patient = "9", count = 5000 })
      local response = cjson.decode(get("/Patients(9)/Documents?$count=true&$skip=4990&$orderby=id%20desc").body)
      assert.equal(5000, response["@odata.count"])
      assert.equal(10, #response.value)
    end)
  end)

  describe("multipart bodies", function()
    local FILE = 'Content-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: application/pdf'

    local function send(body, content_type)
      return upload(("-H %s --data-binary @%s"):format(
        quote("Content-Type: " .. (content_type or "multipart/form-data; boundary=xyz")), write_file("form", body)))
    end

    local function file_part(head)
      return "--xyz\r\n" .. (head or FILE:format "a.pdf") .. "\r\n\r\n" .. PDF .. "\r\n"
    end

    it("are accepted if they are valid", function()
      assert.equal(201, send(file_part() .. "--xyz--\r\n").status)
      assert.equal(201, send(file_part() .. "--xyz--").status)
      assert.equal(201, send(file_part() .. "--xyz--", 'multipart/form-data; boundary="xyz"').status)
    end)

    it("have their quoted strings unescaped, and nothing else", function()
      local response = send(file_part(FILE:format [[a\"b\\c%22\n.pdf]]) .. "--xyz--\r\n")
      assert.equal([[a"b\c%22\n.pdf]], cjson.decode(response.body).file_name)
      assert.equal([[a"b\c%22\n.pdf]], last().fields[1].filename)
    end)

    it("are refused if they are invalid", function()
      local text = '--xyz\r\nContent-Disposition: form-data; name="%s"\r\n\r\nv\r\n'
      local good, done = file_part(), "--xyz--\r\n"
      for what, body in pairs {
        ["no last boundary"] = good,
        ["last boundary cut"] = good .. "--xyz-",
        ["preamble"] = "hello\r\n" .. good .. done,
        ["empty line first"] = "\r\n" .. good .. done,
        ["epilogue"] = good .. done .. "hello",
        ["bare LF"] = (good .. done):gsub("\r\n", "\n"),
        ["bare LF in a header"] = file_part('Content-Disposition: form-data; name="file"; filename="a"\n'
          .. "Content-Type: application/pdf") .. done,
        ["unknown name"] = good .. text:format "other" .. done,
        ["no file"] = text:format "description" .. done,
        ["two files"] = good .. good .. done,
        ["two descriptions"] = good .. text:format("description"):rep(2) .. done,
        ["no filename"] = file_part('Content-Disposition: form-data; name="file"\r\nContent-Type: application/pdf')
          .. done,
        ["no type"] = file_part 'Content-Disposition: form-data; name="file"; filename="a.pdf"' .. done,
        ["token for a name"] = file_part('Content-Disposition: form-data; name=file; filename="a"\r\n'
          .. "Content-Type: application/pdf") .. done,
        ["filename*"] = file_part(FILE:format [[a"; filename*="b]]) .. done,
        ["another header"] = file_part(FILE:format "a" .. "\r\nContent-Transfer-Encoding: binary") .. done,
        ["bytes after a boundary"] = "--xyz \r\n" .. good:sub(8) .. done,
        ["nothing at all"] = done,
      } do
        local response = send(body)
        assert.equal(400, response.status, what)
        assert.is_true(cjson.decode(response.body).error.code ~= nil, what)
      end
      for _, content_type in ipairs { "multipart/form-data", "multipart/mixed; boundary=xyz",
        "multipart/form-data; boundary=", "application/pdf" } do
        assert.equal(400, send(good .. done, content_type).status, content_type)
      end
      assert.same({}, admin("GET", "documents?patient=7"))
    end)

    it("may be chunked", function()
      local response = upload("-H 'Transfer-Encoding: chunked' -F file=@" .. write_file("c.pdf", PDF))
      assert.equal(201, response.status)
      assert.equal(#PDF, last().fields[1].size)
    end)
  end)

  describe("the journal", function()
    it("shows the sent requests, and their connections", function()
      upload_pdf "-F 'description=a b'"
      local entry = last()
      assert.equal("upload", entry.operation)
      assert.equal("POST", entry.method)
      assert.equal("/Patients(7)/Documents", entry.path)
      assert.equal("main", entry.listener)
      assert.equal(201, entry.status)
      assert.is_true(entry.complete)
      assert.equal("Host", entry.headers[1][1])
      assert.equal("letter.pdf", entry.fields[1].filename)
      assert.equal("a b", entry.fields[2].value)
      assert.equal(entry.stored, admin("GET", "documents?patient=7")[1].id)
      admin("DELETE", "journal")
      local url = quote(env.BASE_URL .. "/Patients(7)/Documents")
      curl(credentials() .. url .. " " .. url)
      local entries = journal()
      assert.equal(2, #entries)
      assert.equal(entries[1].connection, entries[2].connection)
      token_request()
      assert.same({ client_id = true, client_secret = true, grant_type = "client_credentials",
        scope = env.SCOPE }, last().form)
    end)

    it("has requests that broke off", function()
      local path = write_file("slow.pdf", PDF .. ("x"):rep(3000000))
      assert.equal(28, upload("-m 1 --limit-rate 100k -F file=@" .. path).code)
      for _ = 1, 100 do
        if last().body_bytes > 0 then
          break
        end
        os.execute "sleep 0.05"
      end
      assert.is_false(last().complete)
      assert.equal(cjson.null, last().status)
      assert.same({}, admin("GET", "documents?patient=7"))
    end)
  end)

  describe("settings", function()
    it("change ids, statuses and what a list shows", function()
      admin("POST", "settings", { numeric_ids = true, created_status = 200, delete_status = 200, list_delay = 60 })
      local made = upload_pdf()
      assert.equal(200, made.status)
      local id = made.body:match '"id":(%d+),"patient_id":7,'
      assert.truthy(id)
      assert.equal("", names(list()))
      assert.equal(200, get("/Patients(7)/Documents(" .. id .. ")").status)
      assert.equal(200, get("/Patients(7)/Documents(" .. id .. ")", "-X DELETE").status)
    end)

    it("allow any metadata", function()
      document { id = "raw", raw_metadata = '{"id":12345678901234567890,"x":[]}', content = PDF }
      assert.equal('{"id":12345678901234567890,"x":[]}', get("/Patients(7)/Documents(raw)").body)
      document { id = 5, file_name = cjson.null, content_base64 = "AAEC", content_type = cjson.null }
      local response = value_of "5"
      assert.equal("\0\1\2", response.body)
      assert.is_nil(response.headers["content-type"])
      admin("DELETE", "documents?patient=7&id=5")
      assert.equal(404, value_of("5").status)
    end)
  end)

  describe("a fault", function()
    local id
    before_each(function()
      id = document({ id = "f", content = "0123456789" }).id
    end)

    it("applies only to the requests that it matches", function()
      admin("POST", "faults", {
        { operation = "list", skip = 1, times = 2, action = { status = 500 } },
        { path_contains = "(f)", method = "GET", times = -1, action = { status = 503 }, name = "gone" },
      })
      local seen = {}
      for i = 1, 4 do
        seen[i] = list().status
      end
      assert.same({ 200, 500, 500, 200 }, seen)
      assert.equal(503, value_of(id).status)
      assert.equal("gone", last().fault)
      assert.equal(1, #admin("GET", "faults"))
      admin("DELETE", "faults")
      assert.equal(200, value_of(id).status)
    end)

    it("is refused if it is misspelt", function()
      for _, plans in ipairs { '[{"action":{"statsu":500}}]', '[{"acton":{"status":500}}]', "[{}]", "[", '"x"',
        '[{"action":{"status":500,"body_kind":"x"}}]' } do
        assert.equal(400, admin_response("POST", "faults", plans).status, plans)
      end
      assert.equal(404, admin_response("GET", "nothing").status)
      assert.equal(400, admin_response("POST", "settings", { nothing = 1 }).status)
      assert.equal(403, curl(quote(env.SANDBOX_ADMIN .. "/journal")).status)
    end)

    it("answers with any status, body and header", function()
      for kind, wanted in pairs {
        service = '{"error":{"code":"InternalError","message":"m"}}', gateway = '{"message":"m"}',
        empty = "", token = '{"error":"m"}',
      } do
        fault { status = 500, body_kind = kind, message = "m" }
        assert.equal(wanted, value_of(id).body)
      end
      fault { status = 502, body_kind = "html" }
      assert.equal("text/html", value_of(id).headers["content-type"])
      fault { status = 503, body = "{", headers = { { "Retry-After", "3" } }, remove_headers = { "content-type" } }
      local response = value_of(id)
      assert.equal("{", response.body)
      assert.equal("3", response.headers["retry-after"])
      assert.is_nil(response.headers["content-type"])
    end)

    it("delays the response", function()
      fault { delay = 30 }
      assert.equal(28, get("/Patients(7)/Documents", "-m 1").code)
      assert.is_true(last().complete)
      fault { delay = 0.1 }
      assert.equal(200, list().status)
    end)

    it("ends the connection before, during and after the request", function()
      local path = write_file("b.pdf", PDF .. ("x"):rep(2000000))
      fault { before = "reset" }
      assert.is_true(one_of({ 55, 56 }, upload("-H 'Expect:' -F file=@" .. path).code))
      assert.equal(0, last().body_bytes)
      fault { before = "close" }
      assert.equal(52, list().code)
      fault { during = { bytes = 100000, how = "reset" } }
      assert.is_true(one_of({ 55, 56 }, upload("-F file=@" .. path).code))
      assert.equal(100000, last().body_bytes)
      fault { during = { bytes = 100000, how = "close" } }
      assert.is_true(one_of({ 52, 55, 56 }, upload("-F file=@" .. path).code))
      fault { during = { bytes = 100000, how = "stall" } }
      assert.equal(28, upload("-m 1 -F file=@" .. path).code)
      assert.is_false(last().complete)
      fault { after = "reset" }
      assert.equal(56, upload_pdf().code)
      fault { after = "close" }
      assert.equal(52, upload_pdf().code)
      assert.is_true(last().complete)
      assert.equal(cjson.null, last().stored)
      assert.equal(1, #admin("GET", "documents?patient=7"))
    end)

    it("loses the response after the request was carried out", function()
      fault { lost_reply = "reset" }
      assert.equal(56, upload_pdf().code)
      local entry = last()
      assert.equal(cjson.null, entry.status)
      assert.equal(entry.stored, admin("GET", "documents?patient=7")[2].id)
      fault { lost_reply = "close" }
      assert.equal(52, get("/Patients(7)/Documents(f)", "-X DELETE").code)
      assert.equal("f", last().stored)
      fault { status = 504, effect = true }
      assert.equal(504, upload_pdf().status)
      assert.equal(2, #admin("GET", "documents?patient=7"))
    end)

    it("responds before the body was read", function()
      local path = write_file("e.pdf", PDF .. ("x"):rep(2000000))
      fault { early_status = 503, drain = true, message = "early" }
      assert.equal(503, upload("-H 'Expect:' -F file=@" .. path).status)
      assert.equal(0, last().body_bytes)
      fault { early_status = 413 }
      local response = upload("-H 'Expect:' -F file=@" .. path)
      assert.is_true(response.status == 413 or one_of({ 55, 56 }, response.code))
    end)

    it("resets new connections", function()
      local other = admin("POST", "listen", { name = "accept" })
      fault({ accept = "reset" }, { listener = "accept" })
      local url = quote(other.url .. "/Patients(7)/Documents")
      assert.is_true(one_of({ 35, 55, 56 }, curl(credentials() .. url).code))
      assert.equal(200, curl(credentials() .. url).status)
    end)

    it("makes idle connections stale", function()
      local url = quote(env.BASE_URL .. "/Patients(7)/Documents")
      fault { reset_idle = true }
      local response = curl(credentials() .. url .. " -o /dev/null " .. url)
      assert.equal(0, response.code) -- curl retries by itself
      local entries = journal()
      assert.equal(3, #entries)
      assert.equal(entries[1].connection, entries[2].connection)
      assert.equal("reset_idle", entries[2].fault)
      assert.equal(cjson.null, entries[2].status)
      assert.are_not.equal(entries[2].connection, entries[3].connection)
      admin("DELETE", "journal")
      fault { close_idle = 0 }
      curl(credentials() .. url .. " -o /dev/null " .. url)
      entries = journal()
      assert.are_not.equal(entries[1].connection, entries[#entries].connection)
    end)

    -- The result of a download with curl under an action: its exit code and the received bytes.
    local function seen(action, arguments)
      fault(action)
      local response = value_of(id, arguments)
      return response.code, response.body, response
    end

    -- curl accepts a missing close_notify as the end; OpenSSL's own client distinguishes them.
    local function ends_with_notice(action)
      fault(action)
      local request = write_file("request", ("GET /Patients(7)/Documents(f)/$value HTTP/1.1\r\nHost: x\r\n"
        .. "Authorization: Bearer %s\r\nx-api-key: %s\r\n\r\n"):format(token, env.API_KEY))
      local text = shell(("timeout 20 openssl s_client -quiet -ign_eof -CAfile %s -connect %s <%s 2>&1")
        :format(env.CA_FILE, env.BASE_URL:match "localhost:%d+", request))
      assert.truthy(text:find("0123", 1, true))
      return not text:find "unexpected eof"
    end

    it("breaks the body off", function()
      for action, wanted in pairs { cut = 18, close_notify = 18, reset = 56, chunk_cut = 18 } do
        local code, body = seen { [action] = 4 }
        if action == "cut" and code == 56 then wanted = 56 end -- curl 8.14, for an end without close_notify
        assert.equal(wanted .. " 0123", code .. " " .. body)
      end
      local code, body = seen({ stall = 4 }, "-m 1")
      assert.equal("28 0123", code .. " " .. body)
    end)

    it("ends TLS with close_notify or without", function()
      assert.is_false(ends_with_notice { cut = 4 })
      assert.is_true(ends_with_notice { close_notify = 4 })
      assert.is_true(ends_with_notice { chunk_cut = 4 })
      assert.is_false(ends_with_notice { chunk_cut = 4, unclean = true })
      assert.is_true(ends_with_notice { length = "none" })
      assert.is_false(ends_with_notice { length = "none", unclean = true })
    end)

    it("breaks the head off, drips, and floods", function()
      local response = select(3, seen { head_cut = 30 })
      assert.equal("HTTP/1.1 200 OK\r\n", response.head) -- curl prints complete lines only
      assert.equal("", response.body)
      assert.equal(52, (seen { head_cut = 0 }))
      assert.equal("0123456789", select(2, seen { head_drip = 2000, drip = 100 }))
      response = select(3, seen { header_flood = 20000 })
      assert.truthy(response.headers["x-flood-0020"])
      assert.equal(0, response.code)
      response = select(3, seen { informational = 3, informational_every = 0.01 })
      local _, early = response.head:gsub("HTTP/1.1 103 Early Hints", "")
      assert.equal(3, early)
      assert.equal("0123456789", response.body)
    end)

    it("sends wrong lengths", function()
      assert.equal(18, (seen { length_delta = 5 }))
      assert.equal(28, (seen({ length_delta = 5, hold = true }, "-m 1")))
      assert.equal("01234567", select(2, seen { length_delta = -2 }))
      local code, body, response = seen { length = "none" }
      assert.equal("0 0123456789", code .. " " .. body)
      assert.is_nil(response.headers["content-length"])
      code, body, response = seen { length = "chunked" }
      assert.equal("0 0123456789 chunked", code .. " " .. body .. " " .. response.headers["transfer-encoding"])
      code, body, response = seen { remapped_length = true }
      assert.equal("0 0123456789 10", code .. " " .. body .. " " .. response.headers["x-amzn-remapped-content-length"])
      code, body, response = seen { truncate = 3 }
      assert.equal("0 012 3", code .. " " .. body .. " " .. response.headers["content-length"])
      assert.equal("0123456789more", select(2, seen { append = "more" }))
      assert.equal("0123more", select(2, seen { truncate = 4, append = "more" }))
    end)

    it("never ends", function()
      fault { endless = true }
      local response = value_of(id, "--max-filesize 1000000 -m 1")
      assert.is_true(one_of({ 28, 63 }, response.code))
    end)

    it("changes the encoding of the bytes", function()
      local _, body, response = seen({ gzip = true }, "--compressed")
      assert.equal("0123456789", body)
      assert.equal("gzip", response.headers["content-encoding"])
      _, body, response = seen { base64 = true }
      assert.equal("MDEyMzQ1Njc4OQ==", body)
      assert.equal("application/pdf", response.headers["content-type"])
      _, body, response = seen { json_instead = true, message = "m" }
      assert.equal('200 {"message":"m"}', response.status .. " " .. body)
      _, body = seen { raw = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi" }
      assert.equal("hi", body)
    end)

    it("changes members of JSON", function()
      fault { body_patch = { ["@odata.count"] = 7, value = { ["$remove"] = true }, big = { ["$raw"] = "1e400" } } }
      local body = list({ count = "true" }).body
      assert.truthy(body:find('"@odata.count":7', 1, true))
      assert.truthy(body:find('"big":1e400', 1, true))
      assert.falsy(body:find('"value"', 1, true))
    end)

    it("redirects", function()
      local other = admin("POST", "listen", { name = "foreign" })
      fault { redirect = { status = 307, location = other.url .. "/blob/f" } }
      local response = value_of(id, "-L --location-trusted")
      assert.equal("0123456789", response.body)
      assert.equal("foreign", last().listener)
      assert.equal("blob", last().operation)
      fault({ raw = "HTTP/1.1 204 None\r\n\r\n" }, { listener = "foreign" })
      assert.equal(204, curl(quote(other.url .. "/any/where?x=1")).status)
      admin("DELETE", "listen?name=foreign")
      assert.equal(7, curl(quote(other.url .. "/")).code)
    end)

    it("sends wrong validators and ranges", function()
      local range = "-H 'Range: bytes=4-'"
      assert.equal('W/"x"', select(3, seen { etag = 'W/"x"' }).headers.etag)
      assert.is_nil(select(3, seen { no_validators = true }).headers.etag)
      assert.equal(200, select(3, seen({ ignore_range = true }, range)).status)
      local response = select(3, seen({ bad_range = "wrong_start" }, range))
      assert.equal("206 bytes 5-9/10 56789",
        response.status .. " " .. response.headers["content-range"] .. " " .. response.body)
      response = select(3, seen({ bad_range = "wrong_total" }, range))
      assert.equal("bytes 4-9/11 456789", response.headers["content-range"] .. " " .. response.body)
      response = select(3, seen({ bad_range = "short" }, range))
      assert.equal("bytes 4-8/10 45678", response.headers["content-range"] .. " " .. response.body)
      assert.equal("bytes 4-9/*", select(3, seen({ bad_range = "unknown_total" }, range)).headers["content-range"])
      assert.truthy(select(3, seen({ bad_range = "multipart" }, range)).headers["content-type"]:find("^multipart/byteranges"))
      assert.is_nil(select(3, seen({ bad_range = "unknown_total" }, "-H 'Range: bytes=10-'")).headers["content-range"])
      assert.equal(200, select(3, seen({ ignore_if_match = true }, "-H 'If-Match: \"other\"'")).status)
    end)
  end)

  describe("listeners", function()
    local function code(kind, arguments)
      local other = admin("POST", "listen", { tls = kind, name = kind })
      local response = curl(credentials() .. (arguments or "") .. " " .. quote(other.url .. "/Patients(7)/Documents"))
      admin("DELETE", "listen?name=" .. kind)
      return response.code, response
    end

    it("have good and bad certificates", function()
      assert.equal(0, code "good")
      for _, kind in ipairs { "expired", "not_yet_valid", "wrong_host", "self_signed", "other_ca" } do
        assert.equal(60, code(kind), kind)
        assert.equal(0, code(kind, "-k"), kind)
      end
    end)

    it("have bad certificates, each with its own problem", function()
      for kind, words in pairs { expired = "expired", not_yet_valid = "not yet valid", wrong_host = "match",
        self_signed = "self%-signed", other_ca = "unable to get local issuer" } do
        local _, response = code(kind)
        assert.truthy(response.problem:find(words), response.problem)
      end
    end)

    it("can be plain HTTP, or offer nothing newer than TLS 1.1", function()
      assert.equal(0, code "none")
      assert.equal(35, code "tls11")
      assert.equal(0, code("tls11", "--tlsv1.1 --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0"))
    end)
  end)

  describe("misbehaving clients", function()
    local function raw(bytes)
      local other = admin("POST", "listen", { tls = "none", name = "raw" })
      local response = shell(("curl -sS -m 3 telnet://localhost:%d <%s 2>/dev/null")
        :format(other.port, write_file("raw", bytes)))
      admin("DELETE", "listen?name=raw")
      return response
    end

    it("get 400 or nothing for requests that are not HTTP", function()
      for _, bytes in ipairs {
        "hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
        "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", ("x"):rep(100000),
        "GET / HTTP/1.1\r\nHost: x\r\n" .. ("a: " .. ("b"):rep(1000) .. "\r\n"):rep(100) .. "\r\n",
      } do
        local response = raw(bytes)
        assert.is_true(response == "" or response:find "^HTTP/1.1 400" ~= nil, response)
      end
      assert.is_true(one_of({ 35, 52, 56 }, curl(quote((env.BASE_URL:gsub("https", "http")))).code))
    end)

    it("cause no problem by disconnecting", function()
      local path = write_file("go.pdf", PDF .. ("x"):rep(1000000))
      document { id = "big", size = 20000000 }
      os.execute(([[for i in $(seq 8); do
        curl -s -m 0.3 --limit-rate 1M -o /dev/null --cacert %s %s -F file=@%s %s &
        curl -s -m 0.3 --limit-rate 1M -o /dev/null --cacert %s %s %s &
      done; wait]]):format(env.CA_FILE, credentials(), path, quote(env.BASE_URL .. "/Patients(8)/Documents"),
        env.CA_FILE, credentials(), quote(env.BASE_URL .. "/Patients(7)/Documents(big)/$value")))
      assert.equal(200, list().status)
      assert.same({}, admin("GET", "documents?patient=8"))
    end)
  end)

  it("serves sixty connections at once", function()
    document { id = "shared", size = 3000000 }
    local statuses = shell(([[for i in $(seq 60); do
      curl -s -m 20 -o /dev/null -w '%%{http_code} %%{size_download}\n' --cacert %s %s %s &
    done; wait]]):format(env.CA_FILE, credentials(), quote(env.BASE_URL .. "/Patients(7)/Documents(shared)/$value")))
    local _, good = statuses:gsub("200 3000000\n", "")
    assert.equal(60, good)
  end)

  describe("the admin port", function()
    local function plain(path, arguments)
      return curl((arguments or "") .. " " .. quote(("http://127.0.0.1:%s%s"):format(env.SANDBOX_ADMIN_PORT, path)))
    end

    it("serves the admin paths to clients with the key", function()
      local key = "-H " .. quote("x-sandbox-key: " .. env.SANDBOX_ADMIN_KEY)
      assert.equal(200, plain("/_sandbox/settings", key).status)
      assert.equal(403, plain("/_sandbox/settings").status)
    end)

    it("serves no document", function()
      document { id = "secret" }
      local key = "-H " .. quote("x-sandbox-key: " .. env.SANDBOX_ADMIN_KEY)
      assert.equal(404, plain("/Patients(7)/Documents(secret)/$value", credentials() .. key).status)
      assert.equal(404, plain("/blob/secret", key).status)
      assert.equal(403, plain("/Patients(7)/Documents(secret)", credentials()).status)
    end)

    it("is not counted, and does not use up faults for other requests", function()
      local before = admin("GET", "state").connections
      admin("POST", "faults", { { action = { accept = "reset" }, times = -1 } })
      local key = "-H " .. quote("x-sandbox-key: " .. env.SANDBOX_ADMIN_KEY)
      local response = plain("/_sandbox/state", key)
      assert.equal(200, response.status)
      assert.is_true(cjson.decode(response.body).connections < before + 1)
      assert.equal(200, plain("/_sandbox/faults", "-X DELETE " .. key).status)
    end)

    it("applies the settings in a reset", function()
      admin("POST", "reset", { limits = false, quota = 7 })
      local settings = admin("GET", "settings")
      assert.is_false(settings.limits)
      assert.equal(7, settings.quota)
      assert.equal(400, admin_response("POST", "reset", { nothing = 1 }).status)
    end)
  end)

  it("ends with its input, and deletes its directory", function()
    local text = shell(quote(root .. "/examples/sandbox/run") .. " --stdin </dev/null")
    assert.truthy(text:find "\nready\n")
    assert.equal("", shell("ls -d " .. quote(text:match "NYMBL_CA_FILE=(.*)/ca.pem") .. " 2>/dev/null"))
  end)

  it("deletes its directory if it is terminated", function()
    local other = start "--token-life 9 --max-upload 5"
    assert.is_true(stop(other.pid))
    assert.equal("", shell("ls -d " .. quote(other.CA_FILE:match "(.*)/ca.pem") .. " 2>/dev/null"))
  end)

  it("deletes its directory if it is terminated twice", function()
    -- as by timeout(1), which signals its child and then the process group
    local bin = shell("mktemp -d"):match "[^\n]+"
    finally(function() os.execute("rm -rf " .. quote(bin)) end)
    local file = assert(io.open(bin .. "/rm", "w"))
    file:write('#!/bin/sh\nfor name in TERM INT HUP; do kill -$name $$; done\nexec /bin/rm "$@"\n')
    file:close()
    os.execute("chmod +x " .. quote(bin .. "/rm"))
    local other = start("", "PATH=" .. quote(bin) .. ':"$PATH"')
    assert.is_true(stop(other.pid))
    assert.equal("", shell("ls -d " .. quote(other.CA_FILE:match "(.*)/ca.pem") .. " 2>/dev/null"))
  end)

  it("starts with the paths of another version of Lua, as \"luarocks path\" sets them", function()
    local text = shell(([[
      export LUA_PATH="$(lua5.4 -e 'print(package.path)')" LUA_CPATH="$(lua5.4 -e 'print(package.cpath)')"
      %s --stdin </dev/null]]):format(quote(root .. "/examples/sandbox/run")))
    assert.truthy(text:find "\nready\n")
  end)

  it("refuses unknown options", function()
    local text = shell(quote(root .. "/examples/sandbox/run") .. " --nothing 2>&1; echo $?")
    assert.truthy(text:find "^usage: .*\n2\n$")
  end)
end)
