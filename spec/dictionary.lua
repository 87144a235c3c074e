-- SPDX-License-Identifier: MIT
-- A dictionary like those in ngx.shared, for specs outside nginx.
local dictionary = {}

--- Make a dictionary.
-- @tparam ?function before `before(name)` is called before each operation
-- @treturn table with the dictionary's methods, and `kept`, its values
function dictionary.new(before)
  local kept = {}
  local function operation(name, body)
    return function(_, ...)
      if before then before(name) end
      return body(...)
    end
  end
  return {
    kept = kept,
    get = operation("get", function(key) return kept[key] end),
    delete = operation("delete", function(key) kept[key] = nil end),
    safe_set = operation("safe_set", function(key, value)
      kept[key] = value
      return true
    end),
    safe_add = operation("safe_add", function(key, value)
      if kept[key] ~= nil then return false, "exists" end
      kept[key] = value
      return true
    end),
  }
end

--- Make the process look like a worker of an nginx with these dictionaries, as far as a store needs it.
-- The caller restores `package.loaded.ngx`.
-- @tparam table shared dictionaries by name
function dictionary.pretend_nginx(shared)
  package.loaded.ngx = { shared = shared, worker = { pid = function() return 77 end } }
end

return dictionary
