-- SPDX-License-Identifier: MIT
-- The command `nymbl`: the keys of --json are those that its page names.

local command = require "command"
local helper = require "helper"

local PDF = helper.output("realpath " .. helper.quote(helper.path("spec/fixtures/referral.pdf")))

-- The words in backquotes of a row of the page's table: of its second column, by the first words of its
-- first column.
local function documented(row)
  local page = helper.read_file(helper.path("lua/nymbl/command/README.md"))
  local from = assert(page:find("\n| " .. row, 1, true), row)
  local cell = page:match("|[^|\n]*|([^|\n]*)|", from)
  local words = {}
  for word in cell:gmatch("`([%l_]+)`") do words[word] = true end
  return words
end

describe("the keys of --json", function()
  local clock = command.clock()
  local folder, id

  setup(function()
    helper.reset()
    command.home()
    folder = helper.directory()
    id = helper.add_document { patient = "1", file_name = "a.pdf", content_type = "application/pdf", content = "%PDF-1.4 a",
                               document_type = "Referral", description = "d" }.id
  end)

  -- The objects that a command prints. All their keys must be those of a row; and all of the row's must
  -- occur, except for those in `missing`.
  local function check(row, arguments, missing)
    arguments[#arguments + 1] = "--json"
    local env = { XDG_STATE_HOME = helper.directory() }
    for name, value in pairs(clock) do env[name] = value end
    local _, out = command.run(arguments, { env = env })
    local wanted, found = documented(row), {}
    for _, object in ipairs(command.objects(out)) do
      for name, value in pairs(object) do
        assert.is_true(wanted[name], ("%s: %s is not on the page"):format(row, name))
        found[name] = true
        if name == "would" or name == "error" then
          for inner in pairs(value) do
            assert.is_true(wanted[inner] or documented("an operand that failed")[inner], row .. ": " .. inner)
            found[inner] = true
          end
        end
      end
    end
    for _, name in ipairs(missing or {}) do
      assert.is_true(wanted[name], row .. ": " .. name)
      found[name] = true
    end
    for name in pairs(wanted) do assert.is_true(found[name], ("%s: there is no %s"):format(row, name)) end
  end

  it("are on the page", function()
    check("`list`", { "list", "1" })
    check("`list`", { "show", "1", id })
    check("`download`", { "download", "1", id })
    check("an operand that failed", { "download", "1", "none" }, { "reason", "retry_after", "outcome_unknown" })
    check("`--dry-run`", { "upload", "1", PDF, "--dry-run" })
    check("`patients`", { "patients" })
    check("`export`", { "export", "--to", folder, "--budget", "1", "--dry-run" })
    check("`check`", { "check", "1", folder }, { "name", "size", "document" })
    check("`ping`", { "ping" }, { "err" })
    check("`quota`", { "quota" })
    check("`config`", { "config" })
    check("`delete`", { "delete", "1", id, "--yes" })
  end)

  it("of an upload are those of the metadata, or of the report", function()
    local metadata = documented("`list`")
    local env = { XDG_STATE_HOME = helper.directory() }
    local _, out = command.run({ "upload", "1", PDF, "--json" }, { env = env })
    for name in pairs(command.objects(out)[1]) do assert.is_true(metadata[name] or name == "operand", name) end
    _, out = command.run({ "upload", "1", PDF, "--once", helper.temporary(), "--json" }, { env = env })
    local of_file, of_run = (table.unpack or unpack)(command.objects(out)) -- luacheck: ignore
    for name in pairs(of_file) do assert.is_true(metadata[name] or name == "operand", name) end
    for name in pairs(of_run) do assert.is_true(documented("`upload --once`, at the end")[name], name) end
  end)
end)
