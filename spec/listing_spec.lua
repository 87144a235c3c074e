-- SPDX-License-Identifier: MIT
local helper = require "helper"

describe("patient:documents()", function()
  local client, patient

  -- A sandbox without documents or tokens, and a new client.
  local function begin()
    if client then client:close() end
    helper.reset()
    client = helper.client()
    patient = client:patient("many")
  end

  before_each(begin)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function seed(count)
    helper.admin("POST", "seed", { patient = "many", count = count })
  end

  local function ids(query)
    local list = {}
    for document in patient:documents(query) do list[#list + 1] = document.id end
    return list
  end

  it("returns 5,000 documents through 51 pages, in order, each once", function()
    seed(5000)
    local list = ids()
    assert.equal(5000, #list)
    for i, id in ipairs(list) do
      assert.equal(("doc-seed-%05d"):format(i), id)
    end
    assert.equal(51, #helper.journal("list")) -- 100 documents, and 99 with each further page
  end)

  it("needs 11 requests for 1,000 documents: each page but the first overlaps by one row", function()
    seed(1000)
    assert.equal(1000, #ids())
    local list = helper.journal("list")
    assert.equal(11, #list)
    for i, entry in ipairs(list) do
      assert.equal(math.max(0, (i - 1) * 99), tonumber(entry.path:match("skip=(%d+)") or 0))
    end
  end)

  it("skips nothing if one document is added and one is deleted between two pages", function()
    for _, link in ipairs { false, true } do
      for _, at in ipairs { 5, 20, 60 } do -- the next page is prefetched from the 10th on
        begin()
        helper.admin("POST", "settings", { next_link = link })
        seed(100)
        local seen, total = {}, 0
        for document in patient:documents { page_size = 20 } do
          assert.is_nil(seen[document.id])
          seen[document.id], total = true, total + 1
          if total == at then
            helper.admin("DELETE", "documents?patient=many&id=doc-seed-00002")
            helper.admin("POST", "documents", { patient = "many", id = "doc-seed-00099a", content = "%PDF" })
          end
        end
        assert.equal(101, total)
      end
    end
  end)

  it("does not take 100 of 250 for all if the service ignores $skip", function()
    local rows = {}
    for i = 1, 100 do rows[i] = ('{"id":"%d"}'):format(i) end
    helper.faults { operation = "list", times = -1, action = { status = 200,
      body = ('{"@odata.count":250,"value":[%s]}'):format(table.concat(rows, ",")) } }
    local ok, err = pcall(ids)
    assert.is_false(ok)
    assert.equal("protocol", err.kind)
  end)

  it("returns nothing for an empty list", function()
    assert.same({}, ids())
    assert.equal(1, #helper.journal("list"))
  end)

  it("requests no page beyond the count", function()
    for _, count in ipairs { 1, 99, 100, 101, 200 } do
      begin()
      seed(count)
      assert.equal(count, #ids())
      assert.equal(count == 200 and 3 or math.ceil(count / 100), #helper.journal("list")) -- 100, 99 and 1
    end
  end)

  it("ends without a count too", function()
    for _, count in ipairs { 0, 1, 99, 100, 101, 200 } do
      begin()
      helper.admin("POST", "settings", { count = false })
      if count > 0 then seed(count) end
      assert.equal(count, #ids())
    end
  end)

  it("counts the rows itself if the service does not, and passes on what a callback raises", function()
    begin()
    helper.admin("POST", "settings", { count = false })
    seed(250)
    assert.equal(250, patient:count())
    local thrown, events = { "mine" }, 0
    local other = helper.client { on_event = function()
      events = events + 1
      if events == 3 then error(thrown) end
    end }
    local ok, raised = pcall(function() return other:patient(patient.id):count() end)
    other:close()
    assert.is_false(ok)
    assert.equal(thrown, raised)
    helper.faults { operation = "list", action = { status = 500 }, times = 1, skip = 1 }
    local count, err = patient:count()
    assert.is_nil(count)
    assert.equal("server", err.kind)
  end)

  it("respects top, skip and page_size", function()
    seed(250)
    assert.equal(7, #ids { top = 7 })
    assert.equal(0, #ids { top = 0 })
    assert.equal(120, #ids { top = 120 })
    assert.same({ "doc-seed-00249", "doc-seed-00250" }, ids { skip = 248 })
    assert.same({ "doc-seed-00011", "doc-seed-00012", "doc-seed-00013" }, ids { skip = 10, top = 3, page_size = 2 })
    helper.admin("DELETE", "journal")
    assert.equal(250, #ids { page_size = 50 })
    assert.equal(5, #helper.journal("list"))
  end)

  it("filters, selects and orders", function()
    seed(30)
    local nymbl = require "nymbl"
    local list = {}
    for document in patient:documents { filter = nymbl.filter("document_type eq ?", "Scan"), select = { "file_name" },
                                        orderby = "uploaded_at desc" } do
      list[#list + 1] = document
    end
    assert.equal(10, #list)
    assert.equal("file 00030.pdf", list[1].file_name)
    assert.equal("doc-seed-00030", list[1].id)
    assert.equal("many", list[1].patient_id)
    assert.is_nil(list[1].content_type)
  end)

  it("skips nothing if the loop deletes its documents", function()
    for _, page_size in ipairs { 20, 100 } do
      for _, count in ipairs { 1, 19, 20, 21, 100, 1000 } do
        begin()
        seed(count)
        local seen, total = {}, 0
        for document in patient:documents { page_size = page_size } do
          assert.is_nil(seen[document.id])
          seen[document.id], total = true, total + 1
          assert(document:delete())
        end
        assert.equal(count, total)
        assert.equal(0, #helper.stored("many"))
      end
    end
  end)

  it("returns every document that existed all the time exactly once, if others delete", function()
    for _, page_size in ipairs { 20, 100 } do
      for seed_number, size in ipairs { 300, 300, 1000 } do
        begin()
        seed(size)
        local state = seed_number
        local function random(n)
          state = (state * 1103515245 + 12345) % 2147483648
          return math.floor(state / 65536) % n + 1
        end
        local gone, seen, count = {}, {}, 0
        for document in patient:documents { page_size = page_size } do
          assert.is_nil(seen[document.id])
          seen[document.id] = true
          count = count + 1
          if count % 10 == 0 then -- another client deletes, anywhere in the list
            for _ = 1, 3 do
              local id = ("doc-seed-%05d"):format(random(size))
              if not gone[id] then
                gone[id] = true
                helper.admin("DELETE", "documents?patient=many&id=" .. id)
              end
            end
          end
        end
        for i = 1, size do
          local id = ("doc-seed-%05d"):format(i)
          assert.is_true(seen[id] or gone[id], id)
        end
      end
    end
  end)

  it("raises the error table itself", function()
    seed(150)
    helper.faults { operation = "list", skip = 1, times = -1, action = { status = 404, body_kind = "service" } }
    local count = 0
    local ok, err = pcall(function()
      for _ in patient:documents() do count = count + 1 end
    end)
    assert.is_false(ok)
    assert.equal("not_found", err.kind)
    assert.equal(100, count)
  end)

  it("follows a next link of the same origin only", function()
    seed(250)
    helper.admin("POST", "settings", { next_link = true })
    assert.equal(250, #ids())
    helper.admin("POST", "settings", { next_link = false })
    helper.faults { operation = "list", action = { body_patch = { ["@odata.nextLink"] = "https://127.0.0.2/x" } } }
    local ok, err = pcall(ids)
    assert.is_false(ok)
    assert.equal("redirect", err.kind)
  end)

  it("follows next links to the end and no further", function()
    seed(250)
    helper.admin("POST", "settings", { next_link = true })
    assert.equal(250, #ids())
    assert.equal(3, #helper.journal("list"))
  end)

  it("skips nothing without a count in the query either", function()
    seed(250)
    local total = 0
    for document in patient:documents { count = false } do
      assert(document:delete())
      total = total + 1
    end
    assert.equal(250, total)
  end)

  it("raises if the loop closes the client", function()
    seed(5)
    local ok, message = pcall(function()
      for _ in patient:documents() do client:close() end
    end)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("attempt to use a closed client", 1, true))
  end)

  it("reads numbers as ids", function()
    seed(3)
    helper.admin("POST", "settings", { numeric_ids = true })
    helper.admin("POST", "documents", { patient = "77", id = 4711, content = "%PDF" })
    local document = assert(client:patient(77):get(4711))
    assert.equal("4711", document.id)
    assert.equal("77", document.patient_id)
  end)

  it("gives up if pages repeat", function()
    seed(300)
    local row = '{"id":"same","patient_id":"many"}'
    local body = '{"@odata.count":1000000,"value":[' .. (row .. ","):rep(99) .. row .. "]}"
    helper.faults { operation = "list", times = -1, action = { status = 200, body = body } }
    local ok, err = pcall(ids)
    assert.is_false(ok)
    assert.equal("protocol", err.kind)
  end)

  it("gives up if the count rises and falls and nothing new arrives", function()
    seed(4)
    local plans = {}
    for i = 1, 40 do
      plans[i] = { operation = "list", action = { body_patch = { ["@odata.count"] = i % 2 == 1 and 1e12 or 1000 } } }
    end
    helper.admin("POST", "faults", plans)
    local ok, err = pcall(ids, { page_size = 2 })
    assert.is_false(ok)
    assert.equal("rows_missing", err.reason) -- 4 rows arrived, and no page has a count below 1000
    assert.is_true(#helper.journal("list") < 20)
  end)
end)

describe("patient:page()", function()
  it("returns one page with its count and whether there are more", function()
    helper.reset()
    local client = helper.client()
    local patient = client:patient("many")
    helper.admin("POST", "seed", { patient = "many", count = 30 })
    local page = assert(patient:page { top = 10, skip = 5 })
    assert.equal(10, #page)
    assert.equal(30, page.count)
    assert.is_true(page.has_more)
    assert.equal("doc-seed-00006", page[1].id)
    page = assert(patient:page { skip = 20 })
    assert.equal(10, #page)
    assert.is_false(page.has_more)
    page = assert(patient:page { count = false, page_size = 30 })
    assert.is_true(page.has_more) -- a full page without a count
    assert.equal(3, #helper.journal("list"))
    client:close()
  end)
end)

describe("patient:count()", function()
  it("counts with and without a filter, in one request", function()
    helper.reset()
    local client = helper.client()
    local patient = client:patient("many")
    helper.admin("POST", "seed", { patient = "many", count = 130 })
    assert.equal(130, patient:count())
    assert.equal(1, #helper.journal("list"))
    assert.equal(43, patient:count("document_type eq 'Scan'"))
    helper.admin("POST", "settings", { count = false })
    assert.equal(130, patient:count())
    client:close()
  end)
end)
