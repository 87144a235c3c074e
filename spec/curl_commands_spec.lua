-- SPDX-License-Identifier: MIT
-- The API's documentation has curl commands. nymbl's requests must look the same to the service.
local helper = require "helper"

describe("the documentation's curl commands", function()
  local client, sandbox, token

  before_each(function()
    helper.reset()
    sandbox = helper.sandbox()
    token = helper.token()
    client = helper.client { token = token }
  end)

  after_each(function()
    client:close()
    client = nil
    assert.equal(0, helper.object_count())
  end)

  local function curl(arguments)
    return helper.output(("curl -sS --http1.1 --cacert %s -H 'Authorization: Bearer %s' -H 'x-api-key: %s' %s"):format(
      helper.quote(sandbox.ca_file), token, sandbox.api_key, arguments))
  end

  -- A request as the service receives it. The User-Agent differs, of course, and so does the boundary.
  -- nymbl also sends "Accept: application/json" if it expects JSON, as the documentation's overview
  -- says; the documentation's commands omit it.
  local function seen(entry)
    local headers, boundary = {}, nil
    for _, pair in ipairs(entry.headers) do
      local name, value = pair[1]:lower(), pair[2]
      boundary = boundary or value:match("boundary=(.*)")
      if name == "accept" then value = "any" end
      if name == "user-agent" then value = "any" end
      if name == "content-length" then value = "any" end
      headers[name] = value:gsub("boundary=.*", "boundary")
    end
    assert(not boundary or boundary:match("^%-*%w+$"))
    return { method = entry.method, path = entry.path, headers = headers, fields = entry.fields, status = entry.status }
  end

  local function compare(theirs, ours)
    helper.admin("DELETE", "journal")
    local theirs_result, ours_result = theirs(), ours()
    local entries = helper.journal()
    assert.equal(2, #entries)
    assert.same(seen(entries[1]), seen(entries[2]))
    return theirs_result, ours_result
  end

  it("upload like nymbl", function()
    local file = helper.path("spec/fixtures/referral.pdf")
    compare(function()
      return curl(("-X POST '%s/Patients(12345)/Documents' -F 'file=@%s' -F 'document_type=Referral' "
        .. "-F 'description=Referral from Dr. Smith'"):format(sandbox.base_url, file))
    end, function()
      return assert(client:patient(12345):upload(file,
        { document_type = "Referral", description = "Referral from Dr. Smith" }))
    end)
    local stored = helper.stored("12345")
    assert.equal(2, #stored)
    assert.equal(stored[1].sha256, stored[2].sha256)
  end)

  it("list like nymbl, which also sends an order and a count option", function()
    helper.admin("POST", "seed", { patient = "12345", count = 3 })
    local theirs, ours = compare(function()
      return curl(("-X GET '%s/Patients(12345)/Documents?$orderby=id&$top=100&$count=true'"):format(sandbox.base_url))
    end, function()
      return assert(client:patient(12345):page())
    end)
    assert.equal(#helper.json.decode(theirs).value, #ours)
  end)

  it("get metadata like nymbl", function()
    local made = helper.admin("POST", "documents", { patient = "12345", id = "doc-abc123", content = "%PDF-1.4" })
    assert.equal("doc-abc123", made.id)
    local theirs, ours = compare(function()
      return curl(("-X GET '%s/Patients(12345)/Documents(doc-abc123)'"):format(sandbox.base_url))
    end, function()
      return assert(client:patient(12345):get("doc-abc123"))
    end)
    assert.equal(helper.json.decode(theirs).file_name, ours.file_name)
  end)

  it("download like nymbl", function()
    helper.admin("POST", "documents", { patient = "12345", id = "doc-abc123", size = 100000 })
    local a, b = helper.temporary(), helper.temporary()
    compare(function()
      return curl(("-X GET '%s/Patients(12345)/Documents(doc-abc123)/$value' -o %s"):format(sandbox.base_url, a))
    end, function()
      return assert(client:patient(12345):document("doc-abc123"):download(b))
    end)
    assert.equal(helper.sha256(a), helper.sha256(b))
  end)

  it("delete like nymbl", function()
    helper.admin("POST", "documents", { patient = "12345", id = "a", content = "%PDF-1.4" })
    helper.admin("POST", "documents", { patient = "12345", id = "b", content = "%PDF-1.4" })
    helper.admin("DELETE", "journal")
    curl(("-X DELETE '%s/Patients(12345)/Documents(a)'"):format(sandbox.base_url))
    assert(client:patient(12345):document("b"):delete())
    local entries = helper.journal()
    entries[1].path = entries[1].path:gsub("%(a%)", "(b)")
    assert.same(seen(entries[1]), seen(entries[2]))
  end)

  it("request a token like nymbl", function()
    client:close()
    client = helper.client()
    helper.admin("DELETE", "journal")
    helper.token()
    assert(client:patient(1):page())
    local found = {}
    for _, entry in ipairs(helper.admin("GET", "journal").requests) do
      if entry.operation == "token" then found[#found + 1] = entry end
    end
    assert.equal(2, #found)
    assert.same(found[1].form, found[2].form)
    assert.equal(helper.header(found[1], "content-type"), helper.header(found[2], "content-type"))
    assert.is_nil(helper.header(found[2], "x-api-key"))
  end)
end)
