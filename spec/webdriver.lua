-- SPDX-License-Identifier: MIT
-- A real browser for specs: Debian's chromium, driven by chromium-driver (W3C WebDriver over HTTP).
-- Both end with the process that started them. The browser resolves no name and reaches nothing
-- but this machine.
local helper = require "helper"

local quote = helper.quote

local browser = {}
browser.__index = browser

-- WebDriver's name of an element's reference.
local ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

--- Keys of `browser:press`, by name (WebDriver, section 17.4.2).
browser.keys = {
  tab = "\238\128\132", enter = "\238\128\135", escape = "\238\128\140", space = " ", shift = "\238\128\136",
}

--- Whether the browser and its driver are installed.
function browser.is_installed()
  return helper.output "command -v chromium && command -v chromedriver" ~= ""
end

local function call(self, method, path, value)
  local body = value and helper.json.encode(value) or ""
  local response = require("spec_http").exchange(self.port, table.concat({
    ("%s %s HTTP/1.1"):format(method, path), "Host: localhost:" .. self.port,
    "Content-Type: application/json", "Content-Length: " .. #body, "", body }, "\r\n"))
  local decoded = helper.json.decode(response:match "\r\n\r\n(.*)$").value
  if type(decoded) == "table" and decoded.error then
    error(("%s: %s"):format(decoded.error, tostring(decoded.message):match "[^\n]*"), 3)
  end
  return decoded
end

-- Call a command of the session.
local function command(self, method, name, value)
  return call(self, method, ("/session/%s/%s"):format(self.id, name), value or method == "POST" and {} or nil)
end

-- Call a command of Chromium's own protocol.
local function devtools(self, name, parameters)
  command(self, "POST", "goog/cdp/execute", { cmd = name, params = parameters })
end

--- Start a browser with an empty profile. What it downloads is in the directory `downloads`.
function browser.start()
  local self = setmetatable({ profile = helper.directory(), downloads = helper.directory(), out = helper.temporary ".out" }, browser)
  local script = helper.write_file(helper.temporary ".sh", [[
    # another process may take the port that it has chosen
    for _ in 1 2 3 4 5; do
      HOME=$2 chromedriver --port=0 >"$1" 2>&1 &
      driver=$!
      until grep -q "started successfully" "$1"; do
        kill -0 $driver 2>/dev/null || continue 2
        sleep 0.05
      done
      break
    done
    read -r _
    pkill -P $driver # the browser, if its session was not ended
    kill $driver 2>/dev/null
    wait $driver
  ]])
  self.pipe = assert(io.popen(("exec bash %s %s %s"):format(quote(script), quote(self.out), quote(self.profile)), "w"))
  self.port = helper.eventually(30, function()
    return helper.exists(self.out) and helper.read_file(self.out):match "started successfully on port (%d+)"
  end)
  if not self.port then error("chromedriver did not start: " .. helper.read_file(self.out)) end
  local arguments = {
    "--headless=new", "--user-data-dir=" .. self.profile, "--window-size=1100,900", "--lang=en-US",
    "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
  }
  if helper.output "id -u" == "0" then arguments[#arguments + 1] = "--no-sandbox" end -- it refuses to run as root otherwise
  local session = call(self, "POST", "/session", { capabilities = { alwaysMatch = {
    browserName = "chrome",
    ["goog:loggingPrefs"] = { browser = "ALL", performance = "ALL" },
    ["goog:chromeOptions"] = {
      binary = helper.output "command -v chromium", args = arguments,
    },
  } } })
  self.id = session.sessionId
  devtools(self, "Browser.setDownloadBehavior", { behavior = "allow", downloadPath = self.downloads })
  return self
end

--- End the browser and its driver.
function browser:stop()
  if not self.pipe then return end
  if self.id then pcall(call, self, "DELETE", "/session/" .. self.id) end
  self.pipe:close() -- waits for the driver's end
  self.pipe = nil
  helper.wait_for(function() return helper.output("pgrep -f -- '[-]-user-data-dir=" .. self.profile .. "'") == "" end)
end

function browser:open(url)
  command(self, "POST", "url", { url = url })
end

--- Run JavaScript. Returns the value that its `return` returns (nil for null and undefined).
function browser:run(script, ...)
  local arguments = { ... }
  arguments[#arguments + 1] = "end" -- an empty table would be encoded as an object
  local value = command(self, "POST", "execute/sync", { script = script, args = arguments })
  if value == helper.json.null then return nil end
  return value
end

--- Run JavaScript until it returns a true value. Returns that.
function browser:wait(script, argument)
  local found = helper.eventually(20, function() return self:run(script, argument) end)
  if not found then error("in vain: " .. script .. "\n" .. tostring(self:run "return document.body.innerText"), 2) end
  return found
end

--- The reference of the element that a CSS selector finds.
function browser:find(selector)
  return command(self, "POST", "element", { using = "css selector", value = selector })[ELEMENT]
end

function browser:click(selector)
  command(self, "POST", ("element/%s/click"):format(self:find(selector)))
end

--- Replace the text of an input.
function browser:fill(selector, text)
  local element = self:find(selector)
  command(self, "POST", ("element/%s/clear"):format(element))
  command(self, "POST", ("element/%s/value"):format(element), { text = text })
end

--- Choose files in a file input.
function browser:choose(selector, ...)
  command(self, "POST", ("element/%s/value"):format(self:find(selector)), { text = table.concat({ ... }, "\n") })
end

--- Press and release keys on whatever has the focus: characters, or values of `browser.keys`.
function browser:press(...)
  local actions = {}
  for _, key in ipairs { ... } do
    actions[#actions + 1] = { type = "keyDown", value = key }
    actions[#actions + 1] = { type = "keyUp", value = key }
  end
  command(self, "POST", "actions", { actions = { { type = "key", id = "keyboard", actions = actions } } })
end

--- Press text, one key after the other.
function browser:type(text)
  local keys = {}
  for character in text:gmatch "." do keys[#keys + 1] = character end
  self:press((unpack or table.unpack)(keys)) -- luacheck: ignore
end

--- Set the size of the page in CSS pixels, also below a window's smallest.
function browser:resize(width, height)
  devtools(self, "Emulation.setDeviceMetricsOverride", { width = width, height = height, deviceScaleFactor = 1, mobile = false })
end

--- Cut the page off from the network, or connect it again.
function browser:set_offline(is_offline)
  devtools(self, "Network.enable", {})
  devtools(self, "Network.emulateNetworkConditions", {
    offline = is_offline, latency = 0, downloadThroughput = -1, uploadThroughput = -1,
  })
end

--- Delete the cookies of the page.
function browser:delete_cookies()
  command(self, "DELETE", "cookie")
end

--- The name and role that assistive technology sees of an element.
function browser:accessible(selector)
  local path = ("element/%s/"):format(self:find(selector))
  return command(self, "GET", path .. "computedlabel"), command(self, "GET", path .. "computedrole")
end

--- Write a picture of the page to a PNG file.
function browser:screenshot(path)
  local file = helper.write_file(helper.temporary ".base64", command(self, "GET", "screenshot"))
  os.execute(("base64 -d %s >%s"):format(quote(file), quote(path)))
end

--- The entries of a log since the last call: "browser" (messages) or "performance" (requests).
function browser:log(kind)
  return command(self, "POST", "se/log", { type = kind })
end

return browser
