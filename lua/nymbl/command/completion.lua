-- SPDX-License-Identifier: MIT
-- nymbl completion

local function run(session, given)
  local parser = require("nymbl.command.help").parser()
  session.out:write(parser["get_" .. given.shell .. "_complete"](parser))
  return 0
end

return {
  summary = "Print completions for a shell",
  operands = { { name = "SHELL", choices = { "bash", "zsh", "fish" }, help = "bash, zsh or fish." } },
  example = {
    "eval \"$(nymbl completion bash)\"",
    "nymbl completion zsh > ~/.zfunc/_nymbl",
    "nymbl completion fish > ~/.config/fish/completions/nymbl.fish",
  },
  is_local = true,
  run = run,
}
