-- SPDX-License-Identifier: MIT
-- The list of patients.
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local helper = require "helper"

describe("client:patients()", function()
  local client

  before_each(function()
    helper.reset()
    for i = 1, 5 do helper.add_document({ size = 10 }, { patient = ("p%d"):format(i) }) end
    client = helper.client()
  end)

  after_each(function()
    client:close()
    client = nil
    assert.equal(0, helper.object_count())
  end)

  local function ids(options)
    local found = {}
    for patient in client:patients(options) do found[#found + 1] = patient.id end
    return table.concat(found, " ")
  end

  -- The paths of the requests, percent-decoded.
  local function requests()
    local paths = {}
    for i, entry in ipairs(helper.journal "patients") do
      paths[i] = entry.path:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    end
    return paths
  end

  it("iterates over all patients, of which it requests only the ids", function()
    assert.equal("p1 p2 p3 p4 p5", ids())
    assert.same({ "/Patients?$select=id&$orderby=id&$top=100&$count=true" }, requests())
  end)

  it("returns patients", function()
    for patient in client:patients { top = 1 } do
      assert.equal("nymbl.patient", tostring(patient))
      assert.equal(1, patient:count())
      assert.equal("p1", patient.id)
      assert.is_nil(patient.first_name)
      assert.equal("p1", core.state(patient, "nymbl.patient").id)
      assert.has_error(function() patient.id = "x" end)
    end
    assert.equal("7", client:patient(7).id)
  end)

  it("returns every patient once, on pages of any size", function()
    for i = 1, 230 do helper.add_document({ size = 10 }, { patient = ("q%03d"):format(i) }) end
    for _, size in ipairs { 1, 7, 100 } do
      local seen, count = {}, 0
      for patient in client:patients { page_size = size } do
        assert.is_nil(seen[patient.id])
        seen[patient.id], count = true, count + 1
      end
      assert.equal(235, count)
    end
    assert.equal("q001 q002 q003", ids { filter = "id gt 'q'", top = 3 })
    assert.equal("p5 p4", ids { orderby = "id desc", filter = "id lt 'q'", top = 2 })
    assert.equal("p3", ids { skip = 2, top = 1 })
  end)

  it("has the selected fields, over which methods win", function()
    helper.faults { operation = "patients", action = { status = 200,
      body = '{"value":[{"id":7,"first_name":"A","last_name":null,"count":3,"env":1,"closed":true}]}' } }
    for patient in client:patients { select = { "first_name", "count" } } do
      assert.same({ "7", "A" }, { patient.id, patient.first_name })
      assert.is_nil(patient.last_name)
      assert.equal(1, patient.env)
      assert.equal("function", type(patient.count))
      assert.equal("nymbl.patient", tostring(patient))
      assert.is_truthy(patient:count())
    end
    assert.truthy(requests()[1]:find("?$select=first_name,count,id&", 1, true))
  end)

  describe("if the service calls the id patient_id", function()
    before_each(function() helper.admin("POST", "settings", { patient_key = "patient_id" }) end)

    it("repeats the first request, once, and remembers the name", function()
      assert.equal("p1 p2 p3 p4 p5", ids { page_size = 2 })
      local sent = requests()
      assert.truthy(sent[1]:find("?$select=id&$orderby=id&", 1, true))
      for i = 2, #sent do assert.truthy(sent[i]:find("?$select=patient_id&$orderby=patient_id&", 1, true)) end
      helper.admin("DELETE", "journal")
      assert.equal("p1 p2 p3 p4 p5", ids())
      assert.equal(1, #requests())
    end)

    it("replaces the name in select and orderby", function()
      assert.equal("p5 p4 p3 p2 p1", ids { select = "first_name, id", orderby = { "active", "id desc" } })
      assert.truthy(requests()[2]:find("?$select=first_name,patient_id&$orderby=active,patient_id desc&", 1, true),
        requests()[2])
      for patient in client:patients() do assert.equal(patient.id, patient.patient_id) end
    end)

    it("repeats it again if the service has changed its mind", function()
      assert.equal("p1 p2 p3 p4 p5", ids())
      helper.admin("POST", "settings", { patient_key = "id" })
      helper.admin("DELETE", "journal")
      assert.equal("p1 p2 p3 p4 p5", ids())
      assert.equal(2, #requests())
    end)
  end)

  it("raises the first error if both names are refused", function()
    local ok, err = pcall(ids, { filter = "nonsense" })
    assert.is_false(ok)
    assert.is_true(errors.is(err))
    assert.same({ "bad_request", 400, "patients" }, { err.kind, err.status, err.operation })
    assert.is_nil(tostring(err.detail):find("patient_id", 1, true))
    assert.equal(2, #requests())
  end)

  it("raises other errors at once", function()
    helper.faults { operation = "patients", action = { status = 403 } }
    local ok, err = pcall(ids)
    assert.is_false(ok)
    assert.equal("forbidden", err.kind)
    assert.equal(1, #requests())
    helper.faults({ operation = "patients", action = { status = 400 } }, { operation = "patients", action = { status = 500 } })
    ok, err = pcall(ids)
    assert.is_false(ok)
    assert.equal("server", err.kind)
    helper.faults { operation = "patients", action = { status = 200, body = '{"value":[{"id":1.5}]}' } }
    ok, err = pcall(ids)
    assert.is_false(ok)
    assert.equal("protocol bad_id", err.kind .. " " .. err.reason)
  end)

  it("raises on a wrong argument", function()
    for _, wrong in ipairs { "x", { filtre = "" }, { top = -1 }, { select = 7 }, { select = { true } } } do
      local ok, message = pcall(function() client:patients(wrong) end)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'patients'", 1, true), message)
    end
  end)
end)
