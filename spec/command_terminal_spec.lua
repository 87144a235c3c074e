-- SPDX-License-Identifier: MIT
-- The command `nymbl`: the progress line of a terminal, and what is hidden from a log or harmless at a
-- terminal.

local command = require "command"
local helper = require "helper"

local quote = helper.quote

local BIG = helper.big_file(3000000)

before_each(function()
  helper.reset()
  command.home()
end)

local function upload_big()
  local _, out = command.run { "upload", "12345", BIG }
  return (assert(out:match("\t(%S+)")))
end

-- The states of the progress line, from what a terminal got.
local function states(screen)
  local found = {}
  for text in screen:gmatch("\r([^\r\n]*)\27%[K") do found[#found + 1] = text end
  return found
end

local function has(screen, pattern)
  for _, text in ipairs(states(screen)) do
    if text:find(pattern) then return true end
  end
  return false
end

describe("the progress line of nymbl", function()
  it("shows bytes, rate, time left and what is left of the month", function()
    local id = upload_big()
    helper.faults { operation = "download", action = { drip = 1500000 }, times = 1 }
    local status, screen = command.run_in_terminal { "download", "12345", id, "-o", "big.pdf" }
    assert.equal(0, status)
    assert.is_true(has(screen, "^big%-3000000%.pdf  [%d.]+ MB of 3%.0 MB | [%d.]+ [kM]B/s | %d s left | 99%d%d requests left this month$"),
      screen)
    assert.matches("\r\27%[Kdoc%-%w+\tbig%.pdf\t3000000\n$", screen) -- the line is gone when the result is printed
  end)

  it("says what is being waited for", function()
    helper.faults { operation = "list", action = { status = 429, headers = { { "Retry-After", "2" } } }, times = 1 }
    local status, screen = command.run_in_terminal { "list", "12345" }
    assert.equal(0, status)
    assert.is_true(has(screen, "the service asks for 2 s"), screen)
    -- one process, because each would take longer to start than a request has to wait on a busy machine
    screen = select(2, command.run_in_terminal { "download", "12345", "a", "b", "c", "d", "e", "f", "g", "h" })
    assert.is_true(has(screen, "waiting for the rate limit"), screen)
  end)

  it("fits the terminal, even if that is resized", function()
    local id = upload_big()
    helper.faults { operation = "download", action = { drip = 1000000 }, times = 1 }
    local resize = "(sleep 1.3; stty cols 20 <$TTY) & "
    local _, screen = command.run_in_terminal({ "download", "12345", id, "-o", "big.pdf" },
      { columns = 60, before = "TTY=$(tty); " .. resize })
    local longest, narrow = 0, 0
    for _, text in ipairs(states(screen)) do
      longest = math.max(longest, #text)
      if #text == 19 then narrow = narrow + 1 end
    end
    assert.equal(59, longest)
    assert.is_true(narrow > 2)
  end)

  it("uses no control sequence at a dumb terminal", function()
    local id = upload_big()
    for _, kind in ipairs { "dumb", false } do
      helper.faults { operation = "download", action = { drip = 2000000 }, times = 1 }
      local status, screen = command.run_in_terminal({ "download", "12345", id, "-o", "big.pdf", "--force" }, { env = { TERM = kind } })
      assert.equal(0, status)
      assert.matches("requests left this month\n", screen)
      assert.not_matches("[\r\27]", screen)
    end
  end)

  it("has no colour", function()
    for _, value in ipairs { "1", false } do
      local _, screen = command.run_in_terminal({ "list", "12345" }, { env = { NO_COLOR = value } })
      assert.not_matches("\27%[[%d;]*m", screen)
    end
  end)

  it("is not shown with --quiet, or if standard error is no terminal", function()
    local id = upload_big()
    local status, screen = command.run_in_terminal { "download", "12345", id, "-o", "big.pdf", "--quiet" }
    assert.equal(0, status)
    assert.equal("", screen)
    local _, _, err = command.run { "download", "12345", id, "-o", "big.pdf", "--force" }
    assert.equal("", err)
  end)
end)

describe("a name with control characters", function()
  -- Sets the title of a terminal, clears it, and reverses the line.
  local NAME = "a\27]0;owned\7\27[2J\r\194\155\226\128\174\255.pdf"

  it("is harmless at a terminal #slow", function()
    local id = helper.add_document { patient = "12345", file_name = "a\27]0;owned\7\27[2J\r\194\155\226\128\174.pdf",
      content_type = "application/pdf", content = "%PDF-1.4 a", description = "\27c", document_type = "\27[31m" }.id
    for _, words in ipairs {
      { "list", "12345" }, { "show", "12345", id }, { "download", "12345", id }, { "download", "12345", "none\27c", NAME },
      { "upload", "12345", NAME }, { "delete", "12345", "none\27c", NAME, "--yes" }, { "\27c" }, { "list", "--\27c" },
      { "delete", "12345", id, "--dry-run" },
    } do
      local _, out, err = command.run(words, { env = { XDG_STATE_HOME = helper.directory() } })
      assert.not_matches("[%z\1-\8\11-\31\127]", out .. err)
      assert.is_nil((out .. err):find("\194\155", 1, true) or (out .. err):find("\226\128\174", 1, true))
      assert.not_matches("\255", out .. err)
      local _, screen = command.run_in_terminal(words, { env = { XDG_STATE_HOME = helper.directory() } })
      screen = screen:gsub("\r([^\r\n\27]*)\27%[K", "%1")
      assert.not_matches("[%z\1-\8\11-\31\127]", screen)
    end
  end)

  it("is complete with --json, which stays valid", function()
    local id = helper.add_document { patient = "12345", file_name = "a\27c\194\155.pdf", content_type = "application/pdf",
      content = "%PDF-1.4 a" }.id
    local _, out = command.run { "show", "12345", id, "--json" }
    assert.equal("a\27c\194\155.pdf", command.objects(out)[1].file_name)
    assert.not_matches("\27", out)
    _, out = command.run { "delete", "12345", "none\27\255", "--yes", "--json" }
    assert.equal("none\27\239\191\189", command.objects(out)[1].operand)
  end)
end)

describe("the words of the service", function()
  before_each(function()
    helper.faults { operation = "get", times = -1, action = { status = 400, content_type = "application/json",
      body = '{"error":{"code":"Odd","message":"no \\u001b[31mMrs. Miller here"}}' } }
  end)

  it("are printed with --verbose, at a terminal only", function()
    local _, screen = command.run_in_terminal { "show", "12345", "x", "--verbose" }
    assert.matches("the service says: no ?[31mMrs. Miller here", screen, 1, true)
    assert.not_matches("Miller", select(2, command.run_in_terminal { "show", "12345", "x" }))
    local _, out, err = command.run { "show", "12345", "x", "--verbose" }
    assert.not_matches("Miller", out .. err)
    _, out, err = command.run { "show", "12345", "x", "--verbose", "--json" }
    assert.not_matches("Miller", out .. err)
  end)
end)

describe("standard error of nymbl that is no terminal", function()
  it("names no patient, document, file or host #slow", function()
    local id = helper.add_document { patient = "patient-4711", file_name = "miller.pdf", content_type = "application/pdf",
      content = "%PDF-1.4 a" }.id
    local path = helper.write_file(command.current_home .. "/miller.pdf", "%PDF-1.4 a")
    helper.write_file(command.current_home .. "/text.pdf", "no PDF")
    local port = helper.sandbox().base_url:match("%d+$")
    local printed = {}
    local function run(words, variables)
      variables = variables or {}
      variables.XDG_STATE_HOME = helper.directory() -- without the rate limit of the runs before
      local _, _, err = command.run(words, { env = variables })
      printed[#printed + 1] = err
    end
    for _, words in ipairs {
      { "upload", "patient-4711", path, path, "text.pdf", "none.pdf" }, { "download", "patient-4711", id, "doc-none", "doc-nil" },
      { "download", "patient-4711", id, "-o", "/nowhere/miller.pdf" }, { "show", "patient-4711", "doc-none" },
      { "delete", "patient-4711", "doc-none", "doc-nil", "--yes" }, { "list", "patient-4711", "--filter", "miller" },
      { "delete", "patient-4711", "doc-none" }, { "patient-4711" }, { "list", "--patient-4711" }, { "ping", "patient-4711", "--quiet" },
    } do
      run(words)
      run(words, { NYMBL_BASE_URL = "https://localhost:1" })
      run(words, { NYMBL_CA_FILE = "/nowhere/miller.pem" })
      words[#words + 1] = "--verbose"
      run(words)
    end
    local all = table.concat(printed)
    assert.is_true(#command.lines(all) > 30)
    for _, word in ipairs { "4711", "miller", "doc%-", "none%.pdf", "nowhere", "localhost", "127%.0", port, quote(command.current_home) } do
      assert.not_matches(word, all)
    end
  end)
end)
