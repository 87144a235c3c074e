-- SPDX-License-Identifier: MIT
-- A document as the source of an upload: doc:copy_to() and patient:upload(doc).
local helper = require "helper"
local nymbl = require "nymbl"

local PDF = "application/pdf"

-- How both sides share connections: the download's window is 256 KB, the upload's 128 KB.
local SIZES = { 9, 1000, 128 * 1024, 128 * 1024 + 1, 300000, 3000000 }

describe("doc:copy_to()", function()
  local client, to

  before_each(function()
    helper.reset()
    client = helper.client()
    to = client:patient "to"
  end)

  after_each(function()
    client:close()
    client, to = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function add(fields)
    return helper.add_document({ patient = "from", id = "d", size = 1000, content_type = PDF, file_name = "a.pdf",
      document_type = "Referral", description = "left knee" }, fields)
  end

  local function original(options)
    return assert((options or client):patient("from"):get "d")
  end

  local function operations()
    local list = {}
    for i, entry in ipairs(helper.journal()) do list[i] = entry.operation end
    return table.concat(list, " ")
  end

  local function forget_requests()
    helper.admin("DELETE", "journal")
  end

  -- The only document of the patient "to" is a whole copy.
  local function is_copied(made)
    local stored = helper.stored "to"
    assert.equal(1, #stored)
    assert.equal(made.sha256, stored[1].sha256)
    return stored[1].metadata
  end

  local function nothing_is_stored()
    assert.same({}, helper.stored "to")
  end

  it("copies bytes, name, types and description, in two requests", function()
    local made = add()
    local doc = original()
    forget_requests()
    local copy = assert(doc:copy_to(to))
    assert.equal("to", copy.patient_id)
    assert.equal(1000, copy.file_size_bytes)
    local metadata = is_copied(made)
    assert.same({ "a.pdf", PDF, "Referral", "left knee" },
      { metadata.file_name, metadata.content_type, metadata.document_type, metadata.description })
    assert.equal("download upload", operations())
  end)

  it("sends what the options say instead", function()
    local made = add()
    assert(original():copy_to(to, { file_name = "b.pdf", document_type = "Other", description = "right knee" }))
    local metadata = is_copied(made)
    assert.same({ "b.pdf", PDF, "Other", "right knee" },
      { metadata.file_name, metadata.content_type, metadata.document_type, metadata.description })
  end)

  it("fetches the metadata if only the id is known", function()
    local made = add()
    assert(client:patient("from"):document("d"):copy_to(to))
    assert.equal("Referral", is_copied(made).document_type)
    assert.equal("get download upload", operations())
  end)

  it("fetches the metadata if a listing has left out a field that the options do not replace", function()
    local made = add()
    for doc in client:patient("from"):documents { select = { "file_name", "file_size_bytes" } } do
      assert(doc:copy_to(to))
    end
    assert.equal("left knee", is_copied(made).description)
    assert.equal("list get download upload", operations())
    forget_requests()
    for doc in client:patient("from"):documents { select = { "file_name", "file_size_bytes" } } do
      assert(doc:copy_to(to, { content_type = PDF, document_type = "x", description = "y" }))
    end
    assert.equal("list download upload", operations())
  end)

  it("is what patient:upload() does with a document", function()
    local made = add()
    assert(to:upload(client:patient("from"):document "d"))
    assert.equal("left knee", is_copied(made).description)
  end)

  it("copies to the same patient, and to a patient of another client", function()
    local made = add()
    local doc = original()
    local copy = assert(doc:copy_to(client:patient "from"))
    assert.are_not.equal(doc.id, copy.id)
    assert.equal(2, #helper.stored "from")
    local other = helper.client()
    assert(doc:copy_to(other:patient "to"))
    is_copied(made)
    assert.equal(PDF, (select(2, copy:download(helper.temporary()))))
    other:close()
  end)

  for _, connections in ipairs { 1, 2 } do
    it("never waits for itself with max_connections = " .. connections, function()
      local narrow = helper.client { max_connections = connections, timeout = 20 }
      for i, size in ipairs(SIZES) do add { id = "d" .. i, size = size } end
      for i, size in ipairs(SIZES) do
        local doc = narrow:patient("from"):document("d" .. i)
        assert.equal(size, assert(doc:copy_to(narrow:patient "to")).file_size_bytes)
      end
      local all = {}
      for i = 1, 3 * #SIZES do all[i] = "d" .. (i % #SIZES + 1) end
      local copied, failed = nymbl.each(all, { concurrency = #all }, function(id)
        return narrow:patient("from"):document(id):copy_to(narrow:patient "to")
      end)
      assert.same({}, failed)
      assert.equal(#all, copied)
      local sums, copies = {}, {}
      for _, entry in ipairs(helper.stored "from") do sums[entry.sha256] = 4 end
      for _, entry in ipairs(helper.stored "to") do copies[entry.sha256] = (copies[entry.sha256] or 0) + 1 end
      assert.same(sums, copies)
      narrow:close()
    end)
  end

  it("copies a document whose size nobody states", function()
    for _, size in ipairs(SIZES) do
      add { id = "u" .. size, size = size, file_size_bytes = helper.json.null }
      helper.faults { operation = "download", action = { length = "chunked" } }
      local copy = assert(client:patient("from"):document("u" .. size):copy_to(to))
      assert.equal(size, copy.file_size_bytes)
    end
  end)

  it("takes the size from the response if the metadata has none", function()
    add { size = 3000000, file_size_bytes = helper.json.null }
    assert(client:patient("from"):document("d"):copy_to(to))
    local names = {}
    for _, header in ipairs(helper.journal("upload")[1].headers) do names[header[1]:lower()] = header[2] end
    assert.is_truthy(tonumber(names["content-length"]) > 3000000)
  end)

  it("makes another reservation for the upload if the download takes long to begin", function()
    add()
    local doc = original()
    local limiter = require "nymbl.limiter"
    local reserve, cancel, log = limiter.reserve, limiter.cancel, {}
    function limiter.reserve(env, operation, ...)
      log[#log + 1] = operation
      return reserve(env, operation, ...)
    end
    function limiter.cancel(reservation)
      log[#log + 1] = "cancel " .. reservation.operation
      return cancel(reservation)
    end
    helper.faults { operation = "download", action = { delay = 0.3 } }
    assert(doc:copy_to(to))
    assert(doc:copy_to(to))
    limiter.reserve, limiter.cancel = reserve, cancel
    assert.equal("upload download cancel upload upload", table.concat(log, " ", 1, 4))
  end)

  describe("if the service fails,", function()
    -- The parts of the original that arrive before a failure: none, some, all that fit into both windows, all.
    for _, size in ipairs { 1000, 300000, 3000000 } do
      for name, action in pairs {
        ["a cut"] = { cut = size - 1 },
        ["a reset"] = { reset = math.floor(size / 2) },
        ["an end without the last chunk"] = { chunk_cut = size },
        ["more bytes than stated"] = { append = "more", length = "chunked" },
        ["fewer bytes than stated"] = { truncate = size - 10, length = "chunked" },
        ["an error instead of the document"] = { json_instead = true },
      } do
        it(name .. " in the download of " .. size .. " bytes leaves nothing", function()
          add { size = size }
          helper.faults { operation = "download", action = action }
          local copy, err = original():copy_to(to)
          assert.is_nil(copy)
          assert.equal("download", err.operation)
          assert.is_nil(err.outcome_unknown)
          nothing_is_stored()
        end)
      end
    end

    it("the error names the side that failed", function()
      add()
      local doc, id_only = original(), client:patient("from"):document "d"
      for operation, copied in pairs { get = id_only, download = doc, upload = doc } do
        helper.faults { operation = operation, action = { status = 403, body_kind = "service" } }
        local copy, err = copied:copy_to(to)
        assert.is_nil(copy)
        assert.same({ operation, "forbidden", 403 }, { err.operation, err.kind, err.status })
        nothing_is_stored()
      end
    end)

    it("repeats what may be repeated on both sides", function()
      local made = add()
      local patient = helper.client { max_attempts = 3 }
      helper.faults({ operation = "get", action = { status = 503 } }, { operation = "download", action = { status = 503 } },
        { operation = "upload", action = { status = 429, message = "Too Many Requests" } })
      assert(patient:patient("from"):document("d"):copy_to(patient:patient "to"))
      is_copied(made)
      assert.equal("get get download download upload upload", operations())
      patient:close()
    end)

    for _, size in ipairs { 1000, 3000000 } do
      it("downloads " .. size .. " bytes again if the service reads them and then refuses the token", function()
        local made = add { size = size }
        local patient = helper.client { max_attempts = 3 }
        local doc = original(patient)
        forget_requests()
        helper.faults { operation = "upload", action = { status = 401, body_kind = "gateway", effect = true } }
        local copy = assert(doc:copy_to(patient:patient "to"))
        -- this fault makes the sandbox store the first upload, too
        local stored = helper.stored "to"
        assert.same({ copy.id, made.sha256 }, { stored[2].id, stored[2].sha256 })
        assert.equal("download upload download upload", operations())
        patient:close()
      end)
    end

    it("has an unknown outcome if the response to the whole upload is lost", function()
      local made = add()
      local doc = original()
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local copy, err = doc:copy_to(to)
      assert.is_nil(copy)
      assert.same({ "upload", true }, { err.operation, err.outcome_unknown })
      is_copied(made)
    end)

    it("finds the copy with reconcile", function()
      local made = add()
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local copy = assert(original():copy_to(to, { reconcile = true }))
      assert.equal(helper.stored("to")[1].id, copy.id)
      is_copied(made)
    end)

    it("sends nothing if the quota is not enough for both requests", function()
      add()
      local poor = helper.client { monthly_quota = 2 }
      local copy, err = poor:patient("from"):document("d"):copy_to(poor:patient "to")
      assert.is_nil(copy)
      assert.same({ "quota", "download", 0 }, { err.kind, err.operation, err.attempts })
      assert.equal("get", operations())
      assert.equal(1, poor:usage().requests)
      poor:close()
    end)

    it("keeps to the rate limit of both sides", function()
      local made = add()
      local slow = helper.client { rate = { read = { 1000, 1000 }, download = { 1, 1 } } }
      local doc = original(slow)
      assert(doc:open()):close()
      local copy, err = doc:copy_to(slow:patient "to", { timeout = 0.3 })
      assert.is_nil(copy)
      assert.same({ "timeout", "rate_limit", "download" }, { err.kind, err.reason, err.operation })
      nothing_is_stored()
      assert(doc:copy_to(slow:patient "to"))
      is_copied(made)
      slow:close()
    end)

    it("does not wait longer than the timeout, on either side", function()
      add { size = 3000000 }
      local doc = original()
      for _, faults in ipairs { { operation = "download", action = { stall = 100 } },
                                { operation = "download", action = { delay = 3 } },
                                { operation = "upload", action = { during = { bytes = 1000, how = "stall" } } } } do
        helper.faults(faults)
        local copy, err = doc:copy_to(to, { timeout = 0.3 })
        assert.is_nil(copy)
        assert.same({ "timeout", "deadline" }, { err.kind, err.reason })
        nothing_is_stored()
      end
    end)
  end)

  it("uploads nothing if the copy would be too large", function()
    local small = helper.client { max_upload_bytes = 999 }
    add()
    local copy, err = client:patient("from"):document("d"):copy_to(small:patient "to")
    assert.is_nil(copy)
    assert.same({ "too_large", "upload", 0 }, { err.kind, err.operation, err.attempts })
    assert.equal("get", operations())
    small:close()
  end)

  it("fails if a text of the document cannot be sent, unless an option replaces it", function()
    for name, value in pairs { file_name = "a\nb.pdf", document_type = "a\0b", description = "\0", content_type = "a\nb" } do
      add { [name] = value }
      local copy, err = client:patient("from"):document("d"):copy_to(to)
      assert.is_nil(copy)
      assert.same({ "protocol", "bad_metadata", "upload" }, { err.kind, err.reason, err.operation })
      nothing_is_stored()
    end
    add { file_name = helper.json.null, description = "\0" }
    assert.equal("bad_metadata", select(2, client:patient("from"):document("d"):copy_to(to)).reason)
    assert(client:patient("from"):document("d"):copy_to(to, { file_name = "b.pdf", description = "" }))
    assert.equal(1, #helper.stored "to")
  end)

  it("reports progress, and can be canceled", function()
    add { size = 3000000 }
    local last, total
    assert(original():copy_to(to, { progress = function(done, size) last, total = done, size end }))
    assert.same({ 3000000, 3000000 }, { last, total })
    local copy, err = original():copy_to(to, { progress = function(done) return done < 100000 end })
    assert.is_nil(copy)
    assert.same({ "canceled", "progress" }, { err.kind, err.reason })
    assert.equal(1, #helper.stored "to")
  end)

  it("passes headers and tag to all its requests", function()
    add()
    local tags = {}
    local observed = helper.client { on_event = function(event) tags[event.operation] = event.tag end }
    assert(observed:patient("from"):document("d"):copy_to(observed:patient "to",
      { tag = "t", headers = { ["x-request-id"] = "r" } }))
    assert.same({ get = "t", download = "t", upload = "t" }, { get = tags.get, download = tags.download, upload = tags.upload })
    observed:close()
  end)

  it("raises on misuse", function()
    add()
    local doc = original()
    local closed = helper.client()
    local elsewhere, of_closed = closed:patient "to", closed:patient("from"):document "d"
    closed:close()
    for words, fn in pairs {
      ["bad argument #1 to 'copy_to' (nymbl.patient expected, got no value)"] = function() doc:copy_to() end,
      ["bad argument #1 to 'copy_to' (nymbl.patient expected, got string)"] = function() doc:copy_to "to" end,
      ["bad argument #1 to 'copy_to' (closed client)"] = function() doc:copy_to(elsewhere) end,
      ["attempt to use a closed client"] = function() to:upload(of_closed) end,
      ["bad argument #2 to 'copy_to' (unknown option 'filename')"] = function() doc:copy_to(to, { filename = "x" }) end,
    } do
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.matches("copy_spec.lua:%d+: ", message)
      assert.is_truthy(message:find(words, 1, true), message)
    end
    nothing_is_stored()
  end)
end)
