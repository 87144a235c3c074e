-- SPDX-License-Identifier: MIT
-- Comparing a folder with a patient's documents.
local helper = require "helper"

describe("patient:compare()", function()
  local client, patient, folder

  before_each(function()
    helper.reset()
    client = helper.client()
    patient = client:patient "p"
    folder = helper.directory()
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function file(name, text)
    helper.write_file(folder .. "/" .. name, text)
  end

  local function document(id, name, text)
    helper.add_document { patient = "p", id = id, file_name = name, content = text, content_type = "application/pdf" }
  end

  -- The lists in a few words: name, size and id of each item.
  local function compare(options)
    local found, words = assert(patient:compare(folder, options)), {}
    for _, list in ipairs { "same", "missing_here", "missing_there", "different" } do
      words[#words + 1] = list .. ":"
      for _, item in ipairs(found[list]) do
        words[#words + 1] = ("%s %d %s"):format(item.name, item.size, item.document and item.document.id or "-")
      end
    end
    return table.concat(words, " ")
  end

  it("finds nothing in an empty folder of a patient without documents", function()
    assert.equal("same: missing_here: missing_there: different:", compare())
  end)

  it("ends if a callback closes the client or raises an error", function()
    document("d1", "a.pdf", "%PDF a")
    client:close()
    client = helper.client { on_event = function(event)
      if event.operation == "list" then client:close() end
    end }
    local found, err = client:patient("p"):compare(folder)
    assert.is_nil(found)
    assert.equal("canceled closed", err.kind .. " " .. err.reason)
    local thrown = { "mine" }
    client = helper.client { on_event = function(event)
      if event.operation == "list" then error(thrown) end
    end }
    local ok, raised = pcall(function() return client:patient("p"):compare(folder) end)
    assert.is_false(ok)
    assert.equal(thrown, raised)
  end)

  it("finds what is the same, missing and different", function()
    document("d1", "a.pdf", "%PDF a")
    document("d2", "b.pdf", "%PDF b")
    document("d3", "c.pdf", "%PDF c")
    file("a.pdf", "%PDF a")
    file("c.pdf", "%PDF cc")
    file("d.pdf", "%PDF d")
    assert.equal("same: a.pdf 6 d1 missing_here: b.pdf 6 d2 missing_there: d.pdf 6 - different: c.pdf 7 d3", compare())
    assert.equal(1, #helper.journal()) -- a page
  end)

  it("knows a document by its file name, its safe name and its unique safe name", function()
    document("d1", "what?.pdf", "1")
    document("d2", "who?.pdf", "22")
    document("d3", "why?.pdf", "333")
    document("d4", "dir/when.pdf", "4444")
    file("what?.pdf", "1")
    file("who_.pdf", "22")
    local doc = assert(patient:get "d3")
    local unique = doc:safe_name { unique = true }
    file(unique, "333")
    assert.equal(("same: what?.pdf 1 d1 who_.pdf 2 d2 %s 3 d3 missing_here: dir_when.pdf 4 d4 missing_there: different:")
      :format(unique), compare())
  end)

  it("takes the document of the file's size among several of one name", function()
    document("d1", "a.pdf", "1")
    document("d2", "a.pdf", "22")
    document("d3", "a.pdf", "333")
    file("a.pdf", "22")
    assert.equal("same: a.pdf 2 d2 missing_here: a.pdf 1 d1 a.pdf 3 d3 missing_there: different:", compare())
    file("a.pdf", "4444")
    assert.equal("same: missing_here: a.pdf 2 d2 a.pdf 3 d3 missing_there: different: a.pdf 4 d1", compare())
  end)

  it("lets every file belong to one document at most", function()
    document("d1", "a.pdf", "11")
    document("d2", "a.pdf", "22")
    file("a.pdf", "22")
    file(assert(patient:get "d2"):safe_name { unique = true }, "22")
    local found = assert(patient:compare(folder))
    assert.equal(2, #found.same)
    assert.equal("d1", found.same[2].document.id)
    assert.same({ 0, 0, 0 }, { #found.missing_here, #found.missing_there, #found.different })
  end)

  it("compares digests with verify, and finds the document with the file's bytes", function()
    document("d1", "a.pdf", "%PDF 1")
    document("d2", "a.pdf", "%PDF 2")
    document("d3", "b.pdf", "%PDF 3")
    document("d4", "c.pdf", "%PDF 44")
    file("a.pdf", "%PDF 2")
    file("b.pdf", "%PDF x")
    file("c.pdf", "%PDF x")
    assert.equal("same: a.pdf 6 d2 missing_here: a.pdf 6 d1 missing_there: different: b.pdf 6 d3 c.pdf 6 d4",
      compare { verify = true })
    assert.equal(3, #helper.journal "download") -- another size needs no bytes
  end)

  it("ignores subfolders, links, special files and incomplete files of the library", function()
    assert(os.execute(("cd %s && mkdir sub && ln -s ../x link.pdf && mkfifo fifo.pdf && echo >sub/a.pdf"
      .. " && touch .nymbl-tmp-00 .nymbl-export a.pdf.nymbl-part a.pdf.nymbl-meta"):format(helper.quote(folder))))
    document("d1", "link.pdf", "%PDF")
    assert.equal("same: missing_here: link.pdf 4 d1 missing_there: different:", compare())
  end)

  it("lists all pages", function()
    helper.admin("POST", "seed", { patient = "p", count = 250, prefix = "d" })
    local found = assert(patient:compare(folder))
    assert.equal(250, #found.missing_here)
  end)

  it("treats a document of unknown size as different, unless the bytes are compared", function()
    helper.add_document { patient = "p", id = "d", file_name = "a.pdf", content = "%PDF", content_type = "application/pdf",
      file_size_bytes = helper.json.null }
    file("a.pdf", "%PDF")
    assert.equal("same: missing_here: missing_there: different: a.pdf 4 d", compare())
    assert.equal("same: a.pdf 4 d missing_here: missing_there: different:", compare { verify = true })
  end)

  it("fails if the folder cannot be read, before any request", function()
    for path, reason in pairs { [folder .. "/none"] = "not_found", [helper.write_file(helper.temporary(), "")] = "not_a_directory" } do
      local found, err = patient:compare(path)
      assert.is_nil(found)
      assert.same({ "io", reason }, { err.kind, err.reason })
      assert.is_nil(tostring(err):find(path, 1, true))
    end
    assert.same({}, helper.journal())
  end)

  it("fails if a request fails, or if the timeout has passed", function()
    document("d1", "a.pdf", "%PDF")
    file("a.pdf", "%PDF")
    for _, operation in ipairs { "list", "download" } do
      helper.faults { operation = operation, action = { status = 403, body_kind = "service" } }
      local found, err = patient:compare(folder, { verify = true })
      assert.is_nil(found)
      assert.same({ "forbidden", operation }, { err.kind, err.operation })
      helper.faults { operation = operation, action = { delay = 3 } }
      found, err = patient:compare(folder, { verify = true, timeout = 1 })
      assert.is_nil(found)
      assert.same({ "timeout", operation }, { err.kind, err.operation })
    end
  end)

  it("raises on misuse", function()
    for words, fn in pairs {
      ["bad argument #1 to 'compare' (string expected, got no value)"] = function() patient:compare() end,
      ["bad argument #1 to 'compare' (empty string)"] = function() patient:compare "" end,
      ["bad argument #2 to 'compare' (unknown option 'verfiy')"] = function() patient:compare("x", { verfiy = true }) end,
    } do
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.is_truthy(message:find(words, 1, true), message)
    end
  end)
end)
