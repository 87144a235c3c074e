-- SPDX-License-Identifier: MIT
-- The media types that the service accepts (lua/README.md, "Facts about the service").

local core = require "nymbl.core"

local media_type = {}

local DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

local TYPE_BY_EXTENSION = {
  pdf = "application/pdf",
  png = "image/png",
  jpg = "image/jpeg",
  jpeg = "image/jpeg",
  tif = "image/tiff",
  tiff = "image/tiff",
  docx = DOCX,
}

-- The extension for a file of the type that has none of its own.
local EXTENSION_BY_TYPE = {
  ["application/pdf"] = "pdf",
  ["image/png"] = "png",
  ["image/jpeg"] = "jpg",
  ["image/tiff"] = "tif",
  [DOCX] = "docx",
}

-- The usual file name extension for a media type, whose parameters are ignored; or nil if
-- the service does not accept the type.
function media_type.extension(content_type)
  return EXTENSION_BY_TYPE[core.lower(content_type:match("^[^; \t]*"))]
end

-- Whether the service accepts a media type. Its parameters are ignored.
function media_type.is_accepted(content_type)
  return media_type.extension(content_type) ~= nil
end

-- The media type for a file name's extension, or nil if the extension is unknown.
function media_type.by_name(name)
  local extension = name:match("%.([^./\\]+)$")
  return extension and TYPE_BY_EXTENSION[core.lower(extension)]
end

return media_type
