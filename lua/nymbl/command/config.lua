-- SPDX-License-Identifier: MIT
-- nymbl config

-- Settings whose values are shown. The others are secrets, or may have one in them.
local IS_SHOWN = {
  NYMBL_BASE_URL = true, NYMBL_TOKEN_URL = true, NYMBL_CA_FILE = true, NYMBL_API_KEY_FILE = true,
  NYMBL_TOKEN_FILE = true, NYMBL_CLIENT_SECRET_FILE = true,
  NYMBL_STORE = true, NYMBL_STORE_PASSWORD_FILE = true, NYMBL_STORE_CA_FILE = true,
  NYMBL_STORE_TOKEN = true, NYMBL_STORE_WHEN_DOWN = true,
}

-- Where a setting comes from, as a text.
local function source_text(settings, setting, profile)
  return setting.source == "environment" and "environment" or settings.path(profile)
end

local function run(session, given)
  local settings = require "nymbl.command.settings"
  local found, err = settings.find(given.profile)
  if not found then return session:fail(err) end
  local function row(name, source, value)
    if given.json then
      session.out:json { name = name, source = source, value = value }
    else
      session.out:row(name, source, value or "(not shown)")
    end
  end
  for _, name in ipairs(settings.NAMES) do
    local setting = found[name]
    if setting then
      -- a user or password in a URL is a mistake, and yet a secret
      local is_shown = IS_SHOWN[name] and not setting.value:find("@", 1, true)
      row(name, source_text(settings, setting, given.profile), is_shown and setting.value or nil)
    end
  end
  if not found.NYMBL_STORE then row("NYMBL_STORE", "default", settings.store_path()) end
  local options
  options, err = settings.options(found, {})
  if not options then return session:fail(err) end
  return 0
end

return {
  summary = "Say where each setting comes from, but no secret",
  text = {
    "Settings are variables of the environment, or lines NAME=value of the file $XDG_CONFIG_HOME/nymbl/config "
      .. "(~/.config/nymbl/config), which only its owner may be able to read or write. The environment wins. A "
      .. "secret can be in a file of its own instead, named by NYMBL_API_KEY_FILE, NYMBL_TOKEN_FILE or "
      .. "NYMBL_CLIENT_SECRET_FILE.",
  },
  example = "nymbl config",
  run = run,
}
