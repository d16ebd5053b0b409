# Asks three times on each connection with the cookie of one session: who answers, for a file, and to store a file.
#
# usage: client.sh URL FILE CONNECTIONS SECONDS SESSION
#
# Prints a line a connection: session, the backends that answered, and whether all bytes are those of FILE.
url=$1 file=$2 connections=$3 seconds=$4 session=$5
got=$file.$session
for connection in $(seq "$connections"); do
  backends=$(curl -sS --fail --noproxy '*' --max-time "$seconds" -H "Cookie: SESS=$session" -H 'Expect:' \
    -w '%{stderr}%header{x-backend} ' -o "$got.who" "$url/files/sent" -o "$got" "$url/files/sent" \
    --next -sS --fail --noproxy '*' --max-time "$seconds" -H "Cookie: SESS=$session" -H 'Expect:' \
    -w '%{stderr}%header{x-backend} ' -T "$file" "$url/put/$session-$connection" 2>&1 >/dev/null)
  whole=whole
  cmp -s "$file" "$got" && cmp -s "$file" "$got.who" || whole=broken
  echo "$session" $backends "$whole"
done
