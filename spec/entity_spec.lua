-- SPDX-License-Identifier: MIT
-- What core/README.md promises under "Where to add": a query option is one line, and a
-- read-only entity is one call. Both are added here, and looked at on the wire.
local check = require "nymbl.check"
local core = require "nymbl.core"
local entity = require "nymbl.entity"
local helper = require "helper"
local query = require "nymbl.query"

local client, env

before_each(function()
  helper.reset()
  client = helper.client()
  env = core.state(client, "nymbl.client").env
end)

after_each(function()
  client:close()
  client, env = nil, nil
  assert.equal(0, helper.object_count())
end)

-- The path and query of the only request of an operation, percent-decoded.
local function requested(operation)
  local entries = helper.journal(operation)
  assert.equal(1, #entries)
  return (entries[1].path:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

describe("a query option", function()
  local added = 0

  -- Add an option behind those that there are.
  local function add(...)
    query.OPTIONS[#query.OPTIONS + 1] = { ... }
    added = added + 1
  end

  local function remove_added()
    while added > 0 do
      table.remove(query.OPTIONS)
      added = added - 1
    end
  end

  after_each(remove_added)

  it("is one line", function()
    add("example", "$example", check.nonempty)

    -- the sandbox does not know this option
    helper.faults { operation = "list", action = { status = 200, body = '{"@odata.count":0,"value":[]}' } }
    assert.same({ has_more = false, count = 0 }, client:patient("7"):page { example = "knee & hip", filter = "id eq 'a'" })
    local sent = requested("list")
    assert.truthy(sent:find("?$filter=id eq 'a'&$orderby=id&", 1, true), sent)
    assert.truthy(sent:find("&$example=knee & hip&$top=100&$count=true", 1, true), sent)
    local ok, message = pcall(function() client:patient("7"):documents { example = "" } end)
    assert.is_false(ok)
    assert.truthy(message:find("bad argument #1 to 'documents' (option 'example': empty string)", 1, true))
  end)

  it("is sent with every page, also as a number or a flag", function()
    helper.admin("POST", "seed", { patient = "many", count = 3 })
    add("depth", "depth", check.integer(1, 9))
    local total = 0
    for _ in client:patient("many"):documents { depth = 2, page_size = 2 } do total = total + 1 end
    assert.equal(3, total)
    local entries = helper.journal("list")
    assert.equal(2, #entries)
    for _, entry in ipairs(entries) do assert.truthy(entry.path:find("&depth=2&", 1, true)) end
    remove_added()
    add("deep", "deep", check.boolean)
    assert(client:patient("many"):page { deep = true, top = 1 })
    assert(client:patient("many"):page { deep = false, top = 1 })
    entries = helper.journal("list")
    assert.truthy(entries[3].path:find("&deep=true&", 1, true))
    assert.is_nil(entries[4].path:find("deep", 1, true))
  end)

  it("is unknown before", function()
    assert.is_false((pcall(function() client:patient("7"):page { example = "knee" } end)))
  end)
end)

describe("a read-only entity", function()
  local practitioners

  before_each(function()
    practitioners = entity.define { name = "practitioners", path = "Practitioners", key = "code" }
  end)

  -- Answer requests for paths with these texts, in this order.
  local function answer(...)
    local plans = {}
    for i, pair in ipairs { ... } do
      plans[i] = { path_contains = pair[1], action = { status = 200, body = pair[2] } }
    end
    helper.admin("POST", "faults", plans)
  end

  it("is one call: its rows are listed page by page", function()
    answer({ "/Practitioners?", '{"@odata.count":3,"value":[{"code":1,"name":"A"},{"code":"b","name":"B"}]}' },
      { "/Practitioners?", '{"@odata.count":3,"value":[{"code":"b","name":"B"},{"code":"c"}]}' })
    local rows = {}
    for row in practitioners.list(env, { select = "name", page_size = 2 }) do rows[#rows + 1] = row end
    assert.same({ { code = "1", name = "A" }, { code = "b", name = "B" }, { code = "c" } }, rows)
    local entries = helper.journal("other")
    assert.equal(2, #entries)
    assert.truthy(entries[1].path:find("/Practitioners?$select=name%2Ccode&$orderby=code&$top=2&$count=true", 1, true))
    assert.truthy(entries[2].path:find("$top=3&$skip=1&$count=true", 1, true))
  end)

  it("has pages, a count and single rows", function()
    answer({ "/Practitioners?", '{"@odata.count":7,"value":[{"code":"a"}]}' },
      { "/Practitioners?", '{"@odata.count":7,"value":[{"code":"a"}]}' },
      { "/Practitioners(", '{"code":"x/1","name":"X"}' }, { "/Practitioners(", '{"code":"y"}' })
    assert.same({ { code = "a" }, count = 7, has_more = true }, practitioners.page(env, { top = 1 }))
    assert.equal(7, practitioners.count(env, { filter = "name eq 'A'" }))
    assert.same({ code = "x/1", name = "X" }, practitioners.get(env, "x/1"))
    local row, err = practitioners.get(env, "x/1")
    assert.is_nil(row)
    assert.equal("protocol practitioners", err.kind .. " " .. err.operation)
    local entries = helper.journal("other")
    assert.truthy(entries[3].path:find("/Practitioners(x%2F1)", 1, true))
  end)

  it("has the errors, options and checks of documents", function()
    local ok, err = pcall(function() for _ in practitioners.list(env) do error "a row" end end)
    assert.is_false(ok)
    assert.equal("forbidden practitioners", err.kind .. " " .. err.operation)
    ok, err = pcall(practitioners.list, env, { selekt = "name" })
    assert.is_false(ok)
    assert.truthy(err:find("bad argument #1 to 'practitioners' (unknown option 'selekt')", 1, true))
    ok, err = pcall(practitioners.get, env, "")
    assert.is_false(ok)
    assert.truthy(err:find("bad argument #1 to 'get' (empty string)", 1, true))
    local one = entity.define { name = "practitioners", path = "Practitioners", one = "practitioner" }
    ok, err = pcall(one.get, env, "a", { top = 1 })
    assert.is_false(ok)
    assert.truthy(err:find("bad argument #2 to 'practitioner' (unknown option 'top')", 1, true))
    for _, row in ipairs { '{}', '{"code":null}', '{"code":1.5}', '5' } do
      helper.reset()
      answer({ "/Practitioners?", '{"value":[' .. row .. "]}" })
      ok, err = pcall(function() for _ in practitioners.list(env) do error "a row" end end)
      assert.is_false(ok)
      assert.equal("protocol", err.kind, row)
    end
  end)

  it("may be an object of its own", function()
    local names = entity.define {
      name = "names", path = "Practitioners", create = function(given, fields, id)
        return { is_ours = given == env, text = id .. " " .. fields.name }
      end,
    }
    answer({ "/Practitioners?", '{"value":[{"id":4711,"name":"A"}]}' })
    assert.same({ { is_ours = true, text = "4711 A" }, has_more = false }, names.page(env))
  end)
end)
