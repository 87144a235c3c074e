-- SPDX-License-Identifier: MIT
-- Each operation over TLS, with the connection ended, reset, stalled or delayed at a byte of what
-- client or server send, the handshake included; then the next calls of the same client.
--
-- The bytes of each connection are counted in a run without a fault. Of these, some are tried, spread
-- over all of them, and more at the end of the request and of the response.
-- With NYMBL_SPEC_LARGE every byte is tried, by a FIN, an RST, a delay and a stall. Under LuaJIT, which
-- has the same core, it is the first three in turn, and a stall at every 32nd byte. In a loop, where the
-- engine's thread does the transfers and many run at once, it is every 4th byte, by these four in turn.
-- NYMBL_SEED shifts turns and strides.
local helper = require "helper"
local lfs = require "lfs"
local nymbl = require "nymbl"
local wire_operations = require "wire_operations"

local is_jit = rawget(_G, "jit") ~= nil
local SEED = tonumber(os.getenv "NYMBL_SEED" or "") or is_jit and 2 or 1
local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil
local SAMPLES = 6 -- of all bytes of an operation; and there are two of each end
local REQUEST_END, RESPONSE_END = 300, 80 -- bytes that are the end: a boundary and a TLS tag are in them
local LANES = 32 -- cases at the same time, in a loop
local STALL = { plain = 0.1, loop = long and 0.5 or 0.15 } -- seconds until a client gives up
-- Bytes between two stalls under LuaJIT, and between any two faults in a loop, in the long form
local STALL_STRIDE, LOOP_STRIDE = 32, 4

local BETWEEN = 3 -- bytes of an operation that are the last of a response, and of what follows it

local ACTIONS = { "fin", "reset", "delay", "stall" }

local function generator(seed)
  local state = (seed * 48271 + 11) % 2147483647
  return function(most)
    state = (state * 16807) % 2147483647
    return math.floor(state / 7) % most + 1
  end
end

local operations, order, pdf = wire_operations.operations, wire_operations.order, wire_operations.pdf

local NETWORK = { network = true, truncated = true, tls = true, protocol = true }

-- Which kind of error a fault may be.
local function check_kind(action, err)
  local expected = action == "stall" and err.kind == "timeout" or action ~= "stall" and NETWORK[err.kind]
  assert(action ~= "delay" and expected, ("after a %s: %s"):format(tostring(action), tostring(err)))
end

describe("a connection that breaks at any byte #slow", function()
  local relay, token, sums
  local folder
  local ids = 1000000 -- of patients, another one each time: a request may be handled late

  setup(function()
    relay = require("relay").start(tonumber(helper.sandbox().base_url:match ":(%d+)"), LANES)
    folder, sums = helper.directory(), {}
  end)
  teardown(function() relay.stop() end)

  local function through(lane, url) return (url:gsub(":%d+", ":" .. lane.port)) end

  local function open(t)
    t.client = assert(nymbl.client(t.options))
    t.patient = t.client:patient(t.id)
  end

  -- One case: a new patient, a document, a client, and what is done before the fault.
  local function case_new(name, plan, lane, stall)
    ids = ids + 1
    local t = { name = name, plan = plan, lane = lane, id = "p" .. ids, folder = folder .. "/" .. ids }
    t.document, t.bytes = pdf(t.id), pdf("upload " .. ids % 16)
    assert(lfs.mkdir(t.folder))
    t.document_id = helper.admin("POST", "documents", { patient = t.id, id = "d", content = t.document }).id
    if name == "upload_all" then t.path = helper.write_file(t.folder .. "/a.pdf", t.bytes) end
    function t.stored() return helper.stored(t.id) end
    function t.sum()
      local sum = sums[t.bytes] or helper.sha256(helper.write_file(folder .. "/bytes", t.bytes))
      sums[t.bytes] = sum
      return sum
    end
    function t.requests(of)
      local found = {}
      for _, entry in ipairs(helper.journal(of)) do
        if entry.path:find("(" .. t.id .. ")", 1, true) then found[#found + 1] = entry end
      end
      return found
    end
    local options = helper.options { base_url = through(lane, helper.sandbox().base_url) }
    options.credentials.token_url = through(lane, options.credentials.token_url)
    if name ~= "token" then options.credentials, options.token = nil, token end
    t.options = options
    if operations[name].prepare then
      lane.plan()
      open(t)
      operations[name].prepare(t)
      t.client:close()
    end
    -- Only a stall takes time: 120 seconds, once an upload was sent. A busy machine may exceed these limits.
    local is_stall = plan and plan.action == "stall"
    if is_stall then
      options.stall_timeout, options.connect_timeout, options.timeout = stall, stall, 2 * stall
    end
    function t.patiently(fn)
      local done, err
      for _ = 1, is_stall and 20 or 1 do
        done, err = fn(t)
        if done or err.kind ~= "timeout" then break end
      end
      return done, err
    end
    return t
  end

  -- The rows that the client sees are those stored.
  local function look(t)
    local page, err = t.patient:page()
    if not page then return nil, err end
    local expected, found = {}, {}
    for i, item in ipairs(t.stored()) do expected[i] = item.id end
    for i, document in ipairs(page) do found[i] = document.id end
    table.sort(expected)
    table.sort(found)
    assert(table.concat(found, " ") == table.concat(expected, " "), "another response")
    return true
  end

  -- The operation of a case, and the next calls. Sets `struck`, and the bytes `ready`, `ended` and `all`
  -- of each connection before the operation, after it and at the end.
  local function case_run(t)
    local operation_, plan, lane = operations[t.name], t.plan, t.lane
    local action = plan and plan.action
    if plan then lane.plan(plan.number, plan.side, plan.offset, action) else lane.plan() end
    open(t)
    local ready, reason = true, nil
    if operation_.before then ready, reason = operation_.before(t) end
    local is_early
    is_early, t.ready = lane.report()
    if not ready then -- it was to strike later; lengths differ
      assert(is_early or action == "stall", tostring(reason))
      t.client:close()
      return
    end
    local done, err = operation_.run(t)
    t.struck, t.ended = lane.report()
    local is_cut = t.struck and not is_early and action ~= "delay"
    if done then
      -- a stall of the handshake may outlast libcurl's limit, but not ours; then it connects once more
      local connected_again = is_cut and #t.ended > plan.number
      local is_again = connected_again and action == "stall"
      t.is_between = connected_again and not is_again and operation_.has_several and not plan.is_late
      assert(not is_cut or is_again or t.is_between or operation_.settles or plan.is_late, "complete without all bytes")
    else
      assert(action, tostring(err))
      check_kind(action, err)
      assert(is_cut or action == "stall", "failed without a fault: " .. tostring(err)) -- its time limits are short
    end
    operation_.check(t, done, err)
    if t.struck or not done then lane.plan() end
    if t.name == "token" and not done then -- all calls of some seconds share the failure of a token request
      t.client:close()
      t.options.store = require("nymbl.store").memory()
      open(t)
    end
    if operation_.after then operation_.after(t, done) end
    t.is_over = true
    -- the next call is that of a healthy service, unless the fault is yet to strike
    local was_struck = t.struck or not done
    local seen, problem
    if was_struck then seen, problem = t.patiently(look) else seen, problem = look(t) end
    if not was_struck then t.struck, t.all = lane.report() end
    if not seen then
      assert(not was_struck and action, "the next call: " .. tostring(problem))
      check_kind(action, problem)
      assert(t.struck or action == "stall", tostring(problem))
      lane.plan()
      assert(t.patiently(look))
    end
    operation_.check(t, done, err)
    t.client:close()
  end

  local function describe_plan(plan)
    return plan and ("%s at byte %d of the %s, connection %d"):format(plan.action, plan.offset, plan.side, plan.number)
      or "without a fault"
  end

  local function guarded(t)
    local ok, problem = pcall(case_run, t)
    if ok then return end
    t.client:close() -- the next test has connections of its own
    error(("%s, patient %s, seed %d: %s"):format(describe_plan(t.plan), t.id, SEED, tostring(problem)), 0)
  end

  -- Runs cases of one operation: one by one, or several at a time in a loop.
  local function run(name, plans, in_loop, seen)
    local step = in_loop and LANES or 1
    for first = 1, #plans, step do
      helper.reset()
      token = helper.token()
      local cases = {}
      for i = first, math.min(#plans, first + step - 1) do
        local lane = i - first + 1 -- the clients of an engine share its connections, so each has a server of its own
        cases[lane] = case_new(name, plans[i], relay[lane], STALL[in_loop and "loop" or "plain"])
      end
      if operations[name].prepare then helper.admin("DELETE", "journal") end
      if in_loop then
        local loop = require("cqueues").new()
        for _, t in ipairs(cases) do
          loop:wrap(function() guarded(t) end)
        end
        assert(loop:loop())
      else
        guarded(cases[1])
      end
      for _, t in ipairs(cases) do
        assert(operations[name].after or #t.requests "upload" <= 1, "sent twice")
        seen(t)
      end
    end
  end

  -- The bytes of an operation, in pieces: number of the connection, side, first offset and length,
  -- and the offset at which the operation has ended.
  local function pieces_of(name, in_loop)
    local pieces, total = {}, 0
    run(name, { false }, in_loop, function(t)
      for number, sent in ipairs(t.all) do
        for _, side in ipairs { "client", "server" } do
          local from = t.ready[number] and t.ready[number][side] or 0
          local ended = t.ended[number] and t.ended[number][side] or from
          local piece = { number = number, side = side, from = from, ended = ended, size = sent[side] - from }
          pieces[#pieces + 1], total = piece, total + piece.size
        end
      end
    end)
    return pieces, total
  end

  -- Late: perhaps after the last byte of the request or of the response. The server's bytes differ by up to
  -- 20, as signatures and session tickets do; a response that lacks more than that is cut in its last
  -- record. In a loop libcurl may also close a connection after the operation, as the process has many.
  local function plan_new(piece, offset, action, in_loop)
    local margin = piece.side == "server" and 24 or in_loop and 4 or 0
    return { number = piece.number, side = piece.side, offset = offset, action = action,
             is_late = offset >= piece.ended - margin }
  end

  -- Some of the bytes, spread over all pieces, and some at the end of request and response.
  local function sampled_plans(pieces, total, turn, in_loop)
    local random, plans = generator(SEED * 100 + turn), {}
    local function add(piece, offset)
      plans[#plans + 1] = plan_new(piece, offset, ACTIONS[(turn + #plans) % 4 + 1], in_loop)
    end
    for i = 0, SAMPLES - 1 do
      local position = math.floor((i + random(1000) / 1001) * total / SAMPLES)
      for _, piece in ipairs(pieces) do
        if position >= 0 and position < piece.size then add(piece, piece.from + position) end
        position = position - piece.size
      end
    end
    for side, bytes in pairs { client = REQUEST_END, server = RESPONSE_END } do
      local largest
      for _, piece in ipairs(pieces) do
        local is_larger = not largest or piece.ended - piece.from > largest.ended - largest.from
        if piece.side == side and is_larger then largest = piece end
      end
      add(largest, largest.ended - random(math.min(bytes, largest.ended - largest.from)))
      add(largest, largest.ended)
    end
    return plans
  end

  -- Every byte, by one action or by three in turn.
  local function all_plans(pieces, in_loop, action)
    local plans = {}
    for _, piece in ipairs(pieces) do
      for offset = piece.from, piece.from + piece.size - 1 do
        local turn = offset + SEED
        local function add(what) plans[#plans + 1] = plan_new(piece, offset, what, in_loop) end
        if in_loop then
          if turn % LOOP_STRIDE == 0 then add(ACTIONS[turn / LOOP_STRIDE % 4 + 1]) end
        else
          add(action or ACTIONS[turn % 3 + 1])
          if not action and turn % STALL_STRIDE == 0 then add "stall" end
        end
      end
    end
    return plans
  end

  local function test(name, turn, in_loop, action)
    local pieces, total = pieces_of(name, in_loop)
    local plans = long and all_plans(pieces, in_loop, action) or sampled_plans(pieces, total, turn, in_loop)
    local struck = { fin = 0, reset = 0, delay = 0, stall = 0 }
    local count, missed, between = 0, plans, 0
    -- not every byte is in every run: lengths of signatures differ, and in a loop connections do
    for _ = 1, 3 do
      local again = {}
      run(name, missed, in_loop, function(t)
        if not t.struck then
          again[#again + 1] = t.plan
          return
        end
        struck[t.plan.action] = struck[t.plan.action] + 1
        count = count + 1
        if t.is_between then between = between + 1 end
      end)
      missed = again
    end
    helper.tried(count, "broken connections", ("%s%s, seed %d: %s of %d bytes; fin %d, reset %d, delay %d, stall %d"):format(
      name, in_loop and " in a loop" or "", SEED, long and (in_loop and "every 4th" or "every one") or "some", total,
      struck.fin, struck.reset, struck.delay, struck.stall))
    -- just at the end of a response, the next request of the operation has a new connection
    assert(between <= BETWEEN, ("%d of %d succeeded on another connection"):format(between, count))
    -- of many idle connections libcurl closes some, and the fault of one that is closed cannot strike
    assert(#missed <= #plans / (in_loop and 4 or 10), ("%d of %d faults did not strike, such as %s"):format(
      #missed, #plans, missed[1] and describe_plan(missed[1]) or ""))
    helper.eventually(5, function() return helper.object_count() == 0 end) -- an I/O thread releases them
    assert.equal(0, helper.object_count())
  end

  for turn, name in ipairs(order) do
    if long and not is_jit then
      for _, action in ipairs(ACTIONS) do
        it(("loses, doubles and mixes up nothing: %s, %s"):format(name, action), function() test(name, turn, false, action) end)
      end
    else
      it("loses, doubles and mixes up nothing: " .. name, function() test(name, turn) end)
    end
  end

  for turn, name in ipairs { "upload", "download", "resume", "continued", "stream", "delete", "export", "upload_all" } do
    it("loses, doubles and mixes up nothing in a loop: " .. name, function() test(name, turn + 1, true) end)
  end
end)
