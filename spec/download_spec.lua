-- SPDX-License-Identifier: MIT
local helper = require "helper"

describe("document:download()", function()
  local client, patient, target

  before_each(function()
    helper.reset()
    client = helper.client()
    patient = client:patient("p 1")
    target = helper.directory()
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function document_of(size, fields)
    local made = helper.add_document({ patient = "p 1", size = size, content_type = "application/pdf" }, fields)
    return assert(patient:get(made.id)), made.sha256
  end

  -- The names in the target directory, to find leftover temporary files.
  local function names()
    return helper.names(target)
  end

  for _, size in ipairs { 0, 1, 16384, 131073, 26214400 } do
    it(("delivers %d bytes unchanged, to every kind of target"):format(size), function()
      local document, sum = document_of(size)
      local path = target .. "/a.pdf"
      local bytes, content_type = assert(document:download(path))
      assert.equal(size, bytes)
      assert.equal("application/pdf", content_type)
      assert.equal(sum, helper.sha256(path))
      assert.equal("a.pdf", names())

      local handle = assert(io.open(path, "wb"))
      assert.equal(size, (assert(document:download(handle))))
      handle:close()
      assert.equal(sum, helper.sha256(path))

      handle = assert(io.open(path, "wb"))
      local ended = 0
      assert.equal(size, (assert(document:download(function(chunk, err)
        assert.is_nil(err)
        if not chunk then
          ended = ended + 1
          return nil
        end
        handle:write(chunk)
        return 1
      end))))
      handle:close()
      assert.equal(1, ended)
      assert.equal(sum, helper.sha256(path))
    end)
  end

  it("creates a private file, unless another mode is given", function()
    local document = document_of(10)
    assert(document:download(target .. "/a"))
    assert.equal("600", helper.output("stat -c %a " .. target .. "/a"))
    assert(document:download(target .. "/a", { mode = 420 })) -- 0644
    assert.equal("644", helper.output("stat -c %a " .. target .. "/a"))
  end)

  it("keeps an existing file if overwrite is false", function()
    local document = document_of(10)
    helper.write_file(target .. "/a", "mine")
    helper.admin("DELETE", "journal")
    local bytes, err = document:download(target .. "/a", { overwrite = false })
    assert.is_nil(bytes)
    assert.equal("io", err.kind)
    assert.equal("exists", err.reason)
    assert.equal(0, err.attempts)
    assert.equal(0, #helper.journal())
    assert.equal("mine", helper.read_file(target .. "/a"))
  end)

  it("keeps a file that appears during the download if overwrite is false", function()
    local document = document_of(3000000)
    local bytes, err = document:download(target .. "/a", { overwrite = false, progress = function()
      helper.write_file(target .. "/a", "mine")
    end })
    assert.is_nil(bytes)
    assert.equal("io", err.kind)
    assert.equal("exists", err.reason)
    assert.equal("mine", helper.read_file(target .. "/a"))
    assert.equal("a", names())
  end)

  it("follows symbolic links", function()
    local document, sum = document_of(10)
    os.execute(("ln -s real %s/link && mkdir %s/sub && ln -s ../link %s/sub/far"):format(target, target, target))
    assert(document:download(target .. "/sub/far"))
    assert.equal(sum, helper.sha256(target .. "/real"))
    assert.equal("real", helper.output("readlink " .. target .. "/link"))
  end)

  it("leaves the target unchanged if the transfer fails", function()
    for _, action in ipairs { { cut = 70000 }, { reset = 70000 }, { close_notify = 70000 }, { chunk_cut = 70000 },
                              { truncate = 70000 }, { length_delta = 10 } } do
      local document = document_of(200000)
      helper.write_file(target .. "/a", "mine")
      helper.faults { operation = "download", action = action }
      local bytes, err = document:download(target .. "/a")
      assert.is_nil(bytes)
      assert.is_true(err.kind == "truncated" or err.kind == "network" or err.kind == "corrupt", err.kind)
      assert.equal("mine", helper.read_file(target .. "/a"))
      assert.equal("a", names())
    end
  end)

  it("reports progress, and ends if the progress function says so", function()
    local document = document_of(26214400)
    local last = 0
    assert(document:download(target .. "/a", { progress = function(done, total)
      assert.is_true(done >= last)
      assert.equal(26214400, total)
      last = done
    end }))
    assert.equal(26214400, last)
    os.remove(target .. "/a")
    for _, to in ipairs { target .. "/a", function() return 1 end } do
      local bytes, err = document:download(to, { progress = function(done) return done < 100000 end })
      assert.is_nil(bytes)
      assert.equal("canceled", err.kind)
    end
    assert.equal("", names())
  end)

  it("calls a table that is callable", function()
    local document, size = document_of(100000), 0
    local sink = setmetatable({}, { __call = function(_, chunk)
      size = size + #(chunk or "")
      return 1
    end })
    assert.equal(100000, document:download(sink))
    assert.equal(100000, size)
    for _, other in ipairs { {}, setmetatable({}, {}) } do
      assert.error_matches(function() document:download(other) end, "path, file or sink expected, got table")
    end
  end)

  it("passes on errors that a sink raises, and reports a failure to the sink", function()
    local document = document_of(100000)
    local thrown = { "mine" }
    local ok, err = pcall(document.download, document, function() error(thrown) end)
    assert.is_false(ok)
    assert.equal(thrown, err)
    local bytes
    bytes, err = document:download(function() return nil, "full" end)
    assert.is_nil(bytes)
    assert.equal("io", err.kind)
    assert.equal("sink", err.reason)
    helper.faults { operation = "download", action = { cut = 70000 } }
    local reported
    bytes, err = document:download(function(chunk, why)
      if not chunk then reported = why end
      return 1
    end)
    assert.is_nil(bytes)
    assert.equal(err, reported)
  end)

  it("ends even a small document if progress says so, before the file is renamed", function()
    local document = document_of(100)
    helper.write_file(target .. "/a", "mine")
    local reported = {}
    local bytes, err = document:download(target .. "/a", { progress = function(done)
      reported[#reported + 1] = done
      return done < 100
    end })
    assert.is_nil(bytes)
    assert.equal("canceled", err.kind)
    assert.equal(100, reported[#reported])
    assert.equal("mine", helper.read_file(target .. "/a"))
    assert.equal("a", names())
  end)

  it("passes only numbers to progress, even if the transfer fails", function()
    for _, action in ipairs { { cut = 150000 }, { reset = 150000 }, { chunk_cut = 150000 } } do
      local document = document_of(200000)
      helper.faults { operation = "download", action = action }
      local bytes = document:download(function() return 1 end, { progress = function(done, total)
        assert.equal("number", type(done))
        assert.is_true(total == nil or type(total) == "number")
      end })
      assert.is_nil(bytes)
    end
  end)

  it("is not repeated after an error that the sink got from another call", function()
    client:close()
    client = helper.client { max_attempts = 5 }
    patient = client:patient("p 1")
    local document = document_of(200000)
    local other = helper.client { token = "dead" }
    local _, denied = other:patient(1):page()
    other:close()
    assert.equal(401, denied.status)
    local calls = 0
    local bytes, err = document:download(function(chunk)
      calls = calls + (chunk and 1 or 0)
      if calls == 3 then return nil, denied end
      return 1
    end)
    assert.is_nil(bytes)
    assert.equal(denied, err)
    assert.equal(1, err.attempts)
    assert.equal(1, #helper.journal("download"))
  end)

  it("does not accept a truncated body behind a redirect", function()
    local document = document_of(100000)
    local foreign = helper.admin("POST", "listen", { tls = "good", name = "foreign" })
    helper.faults({ operation = "download",
                    action = { redirect = { status = 302, location = foreign.url .. "/blob/" .. document.id },
                               length = "none" } },
      { operation = "blob", action = { length = "none", cut = 50000 } })
    local bytes, err = patient:document(document.id):download(target .. "/a")
    assert.is_nil(bytes)
    assert.equal("truncated", err.kind)
    assert.equal("", names())
    helper.admin("DELETE", "listen?name=foreign")
  end)

  it("frees the transfer if on_event raises", function()
    local thrown = { "mine" }
    local document = document_of(100000)
    local other = helper.client { on_event = function(event)
      if event.operation == "download" then error(thrown) end
    end }
    local named = other:patient("p 1"):document(document.id)
    local live = require("nymbl.core").object_count()
    for _, act in ipairs { function() named:download(target .. "/a") end, function() named:open():close() end } do
      local ok, err = pcall(act)
      assert.is_false(ok)
      assert.equal(thrown, err)
      assert.equal(live, require("nymbl.core").object_count())
    end
    other:close()
  end)

  it("gets a new token if the old one expired", function()
    client:close()
    client = helper.client { max_attempts = 2 }
    patient = client:patient("p 1")
    local document, sum = document_of(1000)
    helper.admin("POST", "settings", { expire_tokens = true })
    assert(document:download(target .. "/a"))
    assert.equal(sum, helper.sha256(target .. "/a"))
    assert.equal(2, #helper.journal("download"))
  end)

  it("finds documents with any id", function()
    for _, id in ipairs { "two words", "it's", 'quo"te', "a/b/../c", "(1)", "100%25", "..", "é患者", "a?b#c&d=e", "+" } do
      local made = helper.admin("POST", "documents", { patient = "p 1", id = id, content = "%PDF " .. id })
      assert.equal(id, made.id)
      local document = assert(patient:get(id))
      assert.equal(id, document.id)
      local parts = {}
      assert(document:download(function(chunk) parts[#parts + 1] = chunk return 1 end))
      assert.equal("%PDF " .. id, table.concat(parts))
      assert.is_true(document:delete())
      local _, err = patient:get(id)
      assert.equal("not_found", err.kind)
    end
  end)

  it("reuses an existing connection", function()
    local document = document_of(1000)
    helper.admin("DELETE", "journal")
    for _ = 1, 5 do
      assert(document:refresh())
      assert(document:download(target .. "/a"))
    end
    local connections, count = {}, 0
    for _, entry in ipairs(helper.journal()) do
      if not connections[entry.connection] then
        connections[entry.connection] = true
        count = count + 1
      end
    end
    assert.equal(1, count)
  end)

  it("follows a redirect to another origin without credentials", function()
    local document, sum = document_of(1000)
    local foreign = helper.admin("POST", "listen", { tls = "good", name = "foreign" })
    helper.faults { operation = "download",
                    action = { redirect = { status = 302, location = foreign.url .. "/blob/" .. document.id } } }
    assert(document:download(target .. "/a"))
    assert.equal(sum, helper.sha256(target .. "/a"))
    local seen = 0
    for _, entry in ipairs(helper.admin("GET", "journal").requests) do
      if entry.listener == "foreign" then
        seen = seen + 1
        assert.is_nil(helper.header(entry, "authorization"))
        assert.is_nil(helper.header(entry, "x-api-key"))
      end
    end
    assert.equal(1, seen)
    helper.admin("DELETE", "listen?name=foreign")
  end)
end)
