-- SPDX-License-Identifier: MIT
-- The C program of core/README.md, compiled with the installed library. spec/docs_spec.lua runs the page's commands.

local helper = require "helper"

local quote = helper.quote
local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")

-- Run a command in a directory; exit status, standard output and standard error.
local function try(directory, command)
  local out, err = helper.temporary(".out"), helper.temporary(".err")
  local status = helper.output(("cd %s; { %s; } </dev/null >%s 2>%s; echo $?"):format(quote(directory), command, quote(out),
    quote(err)))
  return tonumber(status), helper.read_file(out), helper.read_file(err)
end

local function run(...)
  local status, out, err = try(...)
  assert(status == 0, out .. err)
  return out
end

describe("the guide's C program #slow #install", function()
  local directory, libraries

  setup(function()
    local page = helper.read_file(helper.path("core/README.md"))
    directory = helper.directory()
    helper.write_file(directory .. "/documents.c", assert(page:match("\n```c\n(/%* documents%.c: .-\n)```\n")))
    run(ROOT, ("cmake --install build --prefix %s/prefix && cp spec/fixtures/referral.pdf %s"):format(quote(directory),
      quote(directory)))
    libraries = helper.output(("dirname $(find %s/prefix -name libnymbl.so)"):format(quote(directory)))
    local compile = assert(page:match("\ncc (%-o documents documents%.c [^\n]+)\n"))
    run(directory, ("export PKG_CONFIG_PATH=%s/pkgconfig; cc -std=c11 -Wall -Wextra -Wpedantic -Werror %s -Wl,-rpath,%s"):format(
      libraries, compile, libraries))
  end)

  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "12345", id = "doc-abc123", size = 100000, content_type = "application/pdf" })
  end)

  -- Run the program with the sandbox's settings; `changes` are further words for env.
  local function documents(arguments, changes)
    local sandbox, words = helper.sandbox(), {}
    for _, name in ipairs { "base_url", "ca_file", "api_key", "token_url", "client_id", "client_secret", "scope" } do
      words[#words + 1] = quote(("NYMBL_%s=%s"):format(name:upper(), sandbox[name]))
    end
    return try(directory, ("env %s env %s ./documents %s"):format(table.concat(words, " "), changes or "", arguments))
  end

  it("uploads a document", function()
    local status, out, err = documents "upload 12345 referral.pdf"
    assert.same({ 0, "" }, { status, err })
    local created = helper.json.decode(out)
    assert.equal("referral.pdf", created.file_name)
    assert.equal("application/pdf", created.content_type)
    for _, document in ipairs(helper.stored "12345") do
      if document.id == created.id then assert.equal(helper.sha256(directory .. "/referral.pdf"), document.sha256) end
    end
    assert.equal(2, #helper.stored "12345")
  end)

  it("downloads a document", function()
    assert.same({ 0, "", "" }, { documents "download 12345 doc-abc123 copy.pdf" })
    assert.equal(helper.stored("12345")[1].sha256, helper.sha256(directory .. "/copy.pdf"))
  end)

  it("says why it failed, and shows no secret", function()
    local function fails(expected, arguments, changes)
      local status, out, err = documents(arguments, changes)
      assert.same({ 1, "" }, { status, out })
      assert.matches(expected, err)
      assert.not_matches("secret-of-mine", err, 1, true)
    end
    local upload = "upload 12345 referral.pdf"
    fails("^tls %(certificate_untrusted%): ", upload, "-u NYMBL_CA_FILE")
    fails("^tls %(ca_file%): ", upload, "NYMBL_CA_FILE=/nowhere")
    fails("^unauthorized %(no reason known%): ", upload, "NYMBL_CLIENT_SECRET=secret-of-mine")
    fails("^misuse %(api_key%): ", upload, "-u NYMBL_API_KEY")
    fails("^unsupported_type %(signature%): ", "upload 12345 documents.c")
    fails("^io %(not_found%): ", "upload 12345 nothing.pdf")
    fails("^io %(exists%): ", "download 12345 doc-abc123 referral.pdf")
    fails("^not_found %(no reason known%): ", "download 12345 doc-none other.pdf")
    helper.faults { operation = "upload", action = { after = true, reset = true }, times = 1 }
    fails("^network %(reset%): .*\nlook for the document before you repeat this\n$", upload)
    local status, _, err = documents ""
    assert.equal(2, status)
    assert.matches("^usage: ", err)
  end)

  it("is formatted as the core is", function()
    if not helper.output("clang-format --version"):match("version 14%.") then
      return pending("another version formats it differently")
    end
    run(ROOT, "clang-format --dry-run -Werror --style=file <" .. quote(directory .. "/documents.c"))
  end)
end)
