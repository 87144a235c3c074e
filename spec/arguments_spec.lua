-- SPDX-License-Identifier: MIT
-- Unusual arguments: lists of names, credentials, a source's limit.
local core = require "nymbl.core"
local helper = require "helper"
local nymbl = require "nymbl"

describe("a list of names", function()
  local client, patient

  before_each(function()
    helper.reset()
    client = helper.client { token = helper.token() }
    patient = client:patient "p"
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
  end)

  -- A parameter of the list request's URL, decoded.
  local function sent(name, query)
    helper.admin("DELETE", "journal")
    patient:page(query)
    local path = helper.journal("list")[1].path
    for key, value in path:gmatch("([^?&=]+)=([^&]*)") do
      if key:gsub("%%24", "$") == "$" .. name then
        return (value:gsub("%+", " "):gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
      end
    end
  end

  it("is sent without its blanks", function()
    for _, given in ipairs { "file_name, id", "file_name ,id", " file_name,id ", "file_name\t,\n id", { "file_name", " id" },
                             { "file_name ", "id" }, { "file_name, id" } } do
      assert.equal("file_name,id", sent("select", { select = given }))
      assert.equal("file_name,id", sent("orderby", { orderby = given }))
    end
    assert.equal("file_name,id", sent("select", { select = " file_name " }))
    assert.equal("file_name desc,id", sent("orderby", { orderby = "file_name  desc , id" }))
    assert.equal("file_name desc,id asc", sent("orderby", { orderby = { " file_name desc", "id\tasc " } }))
  end)

  it("keeps blanks in quotes", function()
    assert.equal("concat(file_name,' , it''s  ') desc,id", sent("orderby", { orderby = "concat(file_name, ' , it''s  ')  desc" }))
  end)

  it("has no empty name", function()
    for _, given in ipairs { " ", ",", "file_name,", ", file_name", "a,,b", "a, ,b", { "a", " " } } do
      for _, name in ipairs { "select", "orderby" } do
        local ok, err = pcall(patient.page, patient, { [name] = given })
        assert.is_false(ok)
        assert.truthy(err:find("bad argument #1 to 'page' (option '" .. name .. "': empty name)", 1, true), err)
      end
    end
  end)
end)

describe("a credential", function()
  it("with a control character raises, and its value is not shown", function()
    for _, character in ipairs { "\n", "\r", "\t", "\1", "\27", "\31", "\127" } do
      for _, name in ipairs { "client_id", "client_secret", "scope" } do
        local credentials = { token_url = "https://a.example/t", client_id = "SECRET", client_secret = "SECRET", scope = "SECRET" }
        credentials[name] = "SECRET" .. character
        local ok, err = pcall(nymbl.client, { base_url = "https://a.example", api_key = "k", credentials = credentials })
        assert.is_false(ok, name)
        assert.truthy(err:find(("option 'credentials': '%s': control character"):format(name), 1, true), err)
        assert.is_nil(err:find "SECRET")
      end
      for _, name in ipairs { "api_key", "token", "user_agent" } do
        local options = { base_url = "https://a.example", api_key = "k", token = "t" }
        options[name] = "SECRET" .. character
        local ok, err = pcall(nymbl.client, options)
        assert.is_false(ok, name)
        assert.truthy(err:find("option '" .. name .. "'", 1, true), err)
        assert.is_nil(err:find "SECRET")
      end
    end
    local problem = select(2, core.client({ base_url = "https://a.example", api_key = "k", scope = "a\nb" }, {}))
    assert.equal("scope", problem.reason)
  end)
end)

describe("a source", function()
  before_each(function() helper.reset() end)

  -- A source that returns one piece at a time and counts its bytes.
  local function counting(total, piece)
    local given = 0
    return function()
      if given >= total then return nil end
      local bytes = (given == 0 and "%PDF-1.4" or ""):sub(1, piece)
      bytes = bytes .. ("x"):rep(math.min(piece, total - given) - #bytes)
      given = given + #bytes
      return bytes
    end, function() return given end
  end

  it("is read no further than its limit", function()
    for _, limit in ipairs { 1, 100, 1000, 16384, 16385, 200000 } do
      local client = helper.client { token = helper.token(), max_upload_bytes = limit }
      local patient = client:patient "p"
      for _, piece in ipairs { 1, 10, 1000, 20000 } do
        if limit / piece < 20000 then
          local source, given = counting(2000000, piece)
          local doc, err = patient:upload(source, { file_name = "a.pdf" })
          assert.is_nil(doc)
          assert.equal("too_large", err.kind)
          assert.equal(0, err.attempts)
          -- only the piece beyond the limit shows that there is more
          assert.is_true(given() <= limit + piece, ("%d of %d by %d"):format(given(), limit, piece))
        end
      end
      client:close()
    end
    assert.same({}, helper.journal())
  end)

  it("with a size beyond any limit is too large, not of unknown size", function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "d", size = 300000, content_type = "application/pdf" })
    local client = helper.client()
    for _, length in ipairs { "9223372036854775807", "9223372036854775808", "99999999999999999999999" } do
      helper.faults { operation = "download", action = { remapped_length = true, stall = 100000,
        headers = { { "x-amzn-Remapped-Content-Length", length } } } }
      local stream = assert(client:patient("p"):document("d"):open())
      local made, err = client:patient("p"):upload(stream, { file_name = "a.pdf" })
      stream:close()
      assert.is_nil(made)
      assert.equal("too_large 0", err.kind .. " " .. err.attempts, length)
    end
    client:close()
  end)

  it("may be as long as its limit", function()
    for _, limit in ipairs { 9, 16384, 200000 } do
      local client = helper.client { token = helper.token(), max_upload_bytes = limit }
      assert(client:patient("p"):upload((counting(limit, 1000)), { file_name = "a.pdf" }))
      local pipe = assert(io.popen(("printf %%%%PDF-1.4; head -c %d /dev/zero"):format(limit - 8)))
      assert(client:patient("p"):upload(pipe, { file_name = "a.pdf" }))
      pipe:close()
      client:close()
    end
    local sizes = {}
    for i, entry in ipairs(helper.stored "p") do sizes[i] = ("%.0f"):format(entry.size) end
    assert.equal("9 9 16384 16384 200000 200000", table.concat(sizes, " "))
  end)

  it("that is a handle keeps the bytes beyond its limit or size", function()
    local path = helper.write_file(helper.temporary(), "%PDF-1.4 " .. ("x"):rep(50000))
    for _, size in ipairs { 9, 100, 20000 } do
      local client = helper.client { token = helper.token() }
      local handle = assert(io.open(path, "rb"))
      local doc, err = client:patient("p"):upload(handle, { file_name = "a.pdf", size = size })
      assert.is_nil(doc)
      assert.equal("size_mismatch", err.reason)
      assert.equal(size, handle:seek())
      handle:close()
      client:close()
    end
    -- the length of a pipe is unknown
    local client = helper.client { token = helper.token(), max_upload_bytes = 20000 }
    local pipe = assert(io.popen("cat " .. helper.quote(path)))
    local doc, err = client:patient("p"):upload(pipe, { file_name = "a.pdf" })
    assert.is_nil(doc)
    assert.equal("too_large", err.kind)
    assert.equal(0, err.attempts)
    assert.equal(30009, #pipe:read("*a"))
    pipe:close()
    client:close()
    assert.same({}, helper.stored "p")
  end)
end)
