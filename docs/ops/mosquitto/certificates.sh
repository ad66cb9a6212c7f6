#!/bin/sh
# Makes a private CA and the certificates of a broker, its devices and its server, with openssl 1.1.1 or newer.
#
#   certificates.sh FOLDER ca                        the CA; its key stays in FOLDER/ca.key
#   certificates.sh FOLDER server NAME [ADDRESS...]  the broker's, for a host name and, if any, IP addresses
#   certificates.sh FOLDER client ID                 a device's; ID is its user name at the broker
#   certificates.sh FOLDER fleet _NAME               the fleet server's, a console's, Home Assistant's; likewise
#
# Names of the fleet's side begin with '_', which no device id does: so no device's certificate, whatever the device
# calls itself, has rights that flyball.acl gives to the fleet.
#
# Days of validity: DAYS (default 365; the CA's 3650). Existing keys of a broker or client are replaced.
set -eu
umask 077
# Ranges of letters mean ASCII.
LC_ALL=C
export LC_ALL

folder=${1:?folder}
kind=${2:?ca, server, client or fleet}
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

plain() { # WORD: 1 to 64 letters, digits, '_', '-', as everywhere in the protocol
    case $1 in '' | *[!A-Za-z0-9_-]*) return 1 ;; esac
    [ ${#1} -le 64 ]
}

refuse() {
    echo "$1" >&2
    exit 1
}

case $kind in
ca)
    [ ! -e ca.key ] || refuse "$folder/ca.key is there already; all certificates hang on it"
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
    case $id in
    _*) refuse "$id: no device id begins with '_'; for the fleet's side: certificates.sh $folder fleet $id" ;;
    -*) refuse "$id: a device id begins with a letter or a digit" ;;
    esac
    plain "$id" || refuse "$id: expected a device id, 1 to 64 letters, digits, '_' and '-'"
    # They are files of this folder, and a device of that name would replace them.
    case $id in ca | server) refuse "$id: is the name of other files in $folder; give the device another id" ;; esac
    sign "$id" "/CN=$id" "extendedKeyUsage=clientAuth"
    ;;
fleet)
    name=${3:?name, with _ in front}
    case $name in
    _[A-Za-z0-9]*) ;;
    *) refuse "$name: expected '_' and then a letter or a digit, as in _fleet, so that it is no device's id" ;;
    esac
    plain "$name" || refuse "$name: expected 1 to 64 letters, digits, '_' and '-'"
    case $name in _all | _server) refuse "$name: stands for something else in topics; take another name" ;; esac
    sign "$name" "/CN=$name" "extendedKeyUsage=clientAuth"
    ;;
*) refuse "unknown: $kind; expected ca, server, client or fleet" ;;
esac
