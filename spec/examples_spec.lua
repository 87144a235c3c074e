-- SPDX-License-Identifier: MIT
-- The programs in examples, each run by the interpreter of this run.

local helper = require "helper"

local LUA = rawget(_G, "jit") and "luajit" or "lua" .. _VERSION:match("%d+%.%d+")
local PDF = helper.path("spec/fixtures/referral.pdf")

-- Run an example with the sandbox's settings; its exit status, standard output and
-- standard error.
local function example(name, ...)
  local sandbox = helper.sandbox()
  local words = { "env" }
  local function add(word) words[#words + 1] = helper.quote(word) end
  add("LUA_PATH=" .. package.path)
  add("LUA_CPATH=" .. package.cpath)
  for _, setting in ipairs { "base_url", "ca_file", "api_key", "token_url", "client_id",
                             "client_secret", "scope" } do
    add(("NYMBL_%s=%s"):format(setting:upper(), sandbox[setting]))
  end
  add(LUA)
  add(helper.path("examples/" .. name .. ".lua"))
  for _, argument in ipairs { ... } do add(argument) end
  local out, err = helper.temporary(".out"), helper.temporary(".err")
  local status = helper.output(("%s </dev/null >%s 2>%s; echo $?"):format(table.concat(words, " "),
    helper.quote(out), helper.quote(err)))
  return tonumber(status), helper.read_file(out), helper.read_file(err)
end

local function uploaded(patient, ...)
  local status, out, err = example("upload", patient, ...)
  assert.equal("", err)
  assert.equal(0, status)
  return assert(out:match("^(%S+)\t"))
end

describe("the example", function()
  before_each(helper.reset)

  it("upload.lua uploads a file and prints its id, name and size", function()
    local status, out, err = example("upload", "12345", PDF, "Referral")
    assert.equal("", err)
    assert.equal(0, status)
    local stored = helper.stored("12345")
    assert.equal(1, #stored)
    assert.equal(helper.sha256(PDF), stored[1].sha256)
    assert.equal("Referral", stored[1].metadata.document_type)
    assert.equal(("%s\treferral.pdf\t%d\n"):format(stored[1].id, #helper.read_file(PDF)), out)
  end)

  it("upload.lua says in one line why a file was refused", function()
    local text = helper.write_file(helper.temporary(".txt"), "hello\n")
    local status, out, err = example("upload", "12345", text)
    assert.equal(1, status)
    assert.equal("", out)
    assert.matches("^nymbl: unsupported_type[^\n]*\n$", err)
  end)

  it("list.lua lists all documents, the newest first", function()
    helper.admin("POST", "seed", { patient = "12345", count = 120, prefix = "d" })
    local status, out, err = example("list", "12345")
    assert.equal("", err)
    assert.equal(0, status)
    local _, lines = out:gsub("\n", "")
    assert.equal(120, lines)
  end)

  it("list.lua lists the documents of one type, whatever is in its name", function()
    uploaded("12345", PDF, "Referral")
    local id = uploaded("12345", PDF, "patient's own")
    local status, out = example("list", "12345", "patient's own")
    assert.equal(0, status)
    assert.matches("^" .. id:gsub("%p", "%%%0") .. "\t[^\n]*\n$", out)
  end)

  it("list.lua says in one line what failed", function()
    helper.faults { operation = "list", times = -1, action = { status = 403, body_kind = "service" } }
    local status, out, err = example("list", "12345")
    assert.equal(1, status)
    assert.equal("", out)
    assert.matches("^nymbl: forbidden 403[^\n]*\n$", err)
  end)

  it("download.lua downloads a file, and never over one that is there", function()
    local id, copy = uploaded("12345", PDF), helper.temporary(".pdf")
    local status, out, err = example("download", "12345", id, copy)
    assert.equal("", err)
    assert.equal(0, status)
    assert.equal(#helper.read_file(PDF) .. " bytes\n", out)
    assert.equal(helper.sha256(PDF), helper.sha256(copy))

    helper.write_file(copy, "mine")
    status, out, err = example("download", "12345", id, copy)
    assert.equal(1, status)
    assert.equal("", out)
    assert.equal("there is such a file already\n", err)
    assert.equal("mine", helper.read_file(copy))
  end)

  it("stream.lua writes a document to standard output", function()
    local status, out, err = example("stream", "12345", uploaded("12345", PDF))
    assert.equal("", err)
    assert.equal(0, status)
    assert.is_true(out == helper.read_file(PDF))
  end)

  it("stream.lua fails where the document breaks off", function()
    local id = uploaded("12345", PDF)
    helper.faults { operation = "download", times = -1, action = { cut = 5000 } }
    local status, out, err = example("stream", "12345", id)
    assert.equal(1, status)
    assert.is_true(#out < #helper.read_file(PDF))
    assert.matches("^nymbl: %l+[^\n]*\n$", err)
  end)

  it("delete.lua deletes a document, and says when there is none", function()
    local id = uploaded("12345", PDF)
    local status, out, err = example("delete", "12345", id)
    assert.equal("", err)
    assert.equal("", out)
    assert.equal(0, status)
    assert.equal(0, #helper.stored("12345"))

    status, out = example("delete", "12345", id)
    assert.equal(0, status)
    assert.equal("there is no such document\n", out)
  end)
end)
