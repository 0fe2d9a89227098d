-- fields(ARGV: key prefix, id, ...) -> for each id {state, target, tags}, or 'unreadable' if its key holds no plan
-- One command for many plans: a search through the history looks at all of them. Writes nothing.
local answers = {}
for index = 2, #ARGV do
  local fields = redis.pcall('HMGET', ARGV[1] .. 'plan:' .. ARGV[index], 'state', 'target', 'tags')
  table.insert(answers, fields.err and 'unreadable' or fields)
end
return answers
