-- SPDX-License-Identifier: MIT
-- A certificate authority, created at start, and its server certificates, valid and invalid.

local altname = require "openssl.x509.altname"
local bignum = require "openssl.bignum"
local context = require "openssl.ssl.context"
local distinguished_name = require "openssl.x509.name"
local extension = require "openssl.x509.extension"
local pkey = require "openssl.pkey"
local rand = require "openssl.rand"
local x509 = require "openssl.x509"

local certificates = {}

local DAY = 86400

local function key_new()
  return pkey.new { type = "EC", curve = "prime256v1" }
end

local function name_new(common_name)
  local name = distinguished_name.new()
  name:add("O", "nymbl sandbox")
  name:add("CN", common_name)
  return name
end

local function certificate_new(common_name, key, from, to)
  local certificate = x509.new()
  certificate:setVersion(3)
  certificate:setSerial(bignum.fromBinary("\1" .. rand.bytes(15)))
  certificate:setSubject(name_new(common_name))
  certificate:setPublicKey(key)
  certificate:setLifetime(from, to)
  return certificate
end

--- A new authority: `{ certificate, key }`.
function certificates.authority(common_name)
  local key = key_new()
  local now = os.time()
  local certificate = certificate_new(common_name, key, now - DAY, now + 30 * DAY)
  certificate:setIssuer(certificate:getSubject())
  certificate:setBasicConstraints { CA = true, pathLen = 0 }
  certificate:setBasicConstraintsCritical(true)
  certificate:addExtension(extension.new("keyUsage", "critical,keyCertSign,cRLSign"))
  certificate:sign(key)
  return { certificate = certificate, key = key }
end

local function names_of_this_machine()
  local names = altname.new()
  names:add("DNS", "localhost")
  names:add("IP", "127.0.0.1")
  names:add("IP", "::1")
  return names
end

local function names_of_another_host()
  local names = altname.new()
  names:add("DNS", "elsewhere.example")
  return names
end

-- How each kind differs from a good certificate.
local kinds = {
  good = {},
  tls11 = {},
  expired = { from = -30 * DAY, to = -DAY },
  not_yet_valid = { from = 10 * DAY, to = 20 * DAY },
  wrong_host = { names = names_of_another_host, common_name = "elsewhere.example" },
  self_signed = { issuer = "itself" },
  other_ca = { issuer = "another" },
}

local function issue(kind, authority)
  local key = key_new()
  local now = os.time()
  local certificate = certificate_new(kind.common_name or "localhost", key,
    now + (kind.from or -DAY), now + (kind.to or 10 * DAY))
  certificate:setSubjectAlt((kind.names or names_of_this_machine)())
  certificate:setBasicConstraints { CA = false }
  certificate:setBasicConstraintsCritical(true)
  if kind.issuer == "another" then
    authority = certificates.authority "nymbl sandbox, an unknown authority"
  elseif kind.issuer == "itself" then
    authority = { certificate = certificate, key = key }
  end
  certificate:setIssuer(authority.certificate:getSubject())
  certificate:sign(authority.key)
  return certificate, key
end

--- A server context of one of the kinds above, or nil and a reason.
function certificates.context(kind_name, authority)
  local kind = kinds[kind_name]
  if not kind then
    return nil, "unknown kind of certificate"
  end
  local tls = context.new("TLS", true)
  if kind_name == "tls11" then
    tls:setOptions(context.OP_NO_TLSv1_2 + context.OP_NO_TLSv1_3)
    -- OpenSSL 3 allows SHA-1 signatures, which TLS 1.1 needs, at security level 0 only.
    local ok, reason = pcall(tls.setCipherList, tls, "ALL:@SECLEVEL=0")
    if not ok then
      return nil, reason
    end
  end
  local certificate, key = issue(kind, authority)
  tls:setPrivateKey(key)
  tls:setCertificate(certificate)
  return tls
end

return certificates
