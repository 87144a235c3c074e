std = "min"
max_line_length = 120
ignore = { "581" } -- "not (x > y)" is how NaN is kept out
read_globals = { math = { fields = { "tointeger", "type" } } } -- Lua 5.3 and later
files["spec"] = { std = "+busted", max_line_length = 140, read_globals = { package = { fields = { "searchpath" } } } }
files["examples/sandbox"] = { std = "luajit" }
files["examples/gateway"] = { std = "ngx_lua" }
files["examples/telemetry"] = { std = "ngx_lua" }
files["lua/nymbl/wait/openresty.lua"] = { std = "ngx_lua" }
