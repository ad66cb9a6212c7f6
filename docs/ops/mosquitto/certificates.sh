#!/bin/sh
# Makes a private CA and the certificates of a broker, its devices and its server, with openssl 1.1.1 or newer.
#
#   certificates.sh FOLDER ca                        the CA; its key stays in FOLDER/ca.key
#   certificates.sh FOLDER server NAME [ADDRESS...]  the broker's, for a host name and, if any, IP addresses
#   certificates.sh FOLDER client ID                 a device's, or the fleet server's; ID is its user name at the broker
#
# Days of validity: DAYS (default 365; the CA's 3650). Existing keys of a broker or client are replaced.
set -eu
umask 077

folder=${1:?folder}
kind=${2:?ca, server or client}
mkdir -p "$folder"
cd "$folder"

sign() { # NAME SUBJECT EXTENSIONS
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key.new"
    openssl req -new -key "$1.key.new" -subj "$2" -out "$1.csr"
    # All that a strict check (Python 3.13 and newer) wants to see.
    printf '%s\n' "$3" 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
        'subjectKeyIdentifier=hash' 'authorityKeyIdentifier=keyid' >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -sha256 \
        -days "${DAYS:-365}" -extfile "$1.ext" -out "$1.crt.new" 2>/dev/null
    # By renaming, so that nobody reads half a file.
    mv "$1.key.new" "$1.key"
    mv "$1.crt.new" "$1.crt"
    chmod 644 "$1.crt"
    rm -f "$1.csr" "$1.ext"
}

case $kind in
ca)
    [ ! -e ca.key ] || { echo "$folder/ca.key is there already; all certificates hang on it" >&2; exit 1; }
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -sha256 -days "${DAYS:-3650}" -subj "/CN=Flyball fleet CA" \
        -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt
    chmod 644 ca.crt
    ;;
server)
    name=${3:?host name}
    shift 3
    names="DNS:$name"
    for address in "$@"; do names="$names,IP:$address"; done
    sign server "/CN=$name" "subjectAltName=$names
extendedKeyUsage=serverAuth"
    ;;
client)
    id=${3:?device id}
    case $id in *[!A-Za-z0-9_-]*) echo "$id: expected letters, digits, '_' and '-'" >&2; exit 1 ;; esac
    sign "$id" "/CN=$id" "extendedKeyUsage=clientAuth"
    ;;
*)
    echo "unknown: $kind; expected ca, server or client" >&2
    exit 1
    ;;
esac
