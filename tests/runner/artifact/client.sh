#!/bin/bash
# What actions/upload-artifact and actions/download-artifact say to GitHub, with nothing but a shell: the calls of
# actions/toolkit (packages/artifact/src/internal) and the requests that its client of Azure's blob storage makes.
set -eu

url=${ACTIONS_RESULTS_URL%/}
origin=${url#http://}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# Where the real client finds the run: in the scope of the token's claims.
claims=$(printf %s "$ACTIONS_RUNTIME_TOKEN" | cut -d. -f2 | tr -- -_ +/)
while [ $((${#claims} % 4)) -ne 0 ]; do claims=$claims=; done
run=$(printf %s "$claims" | base64 -d | sed -n 's/.*"Actions\.Results:\([^: "]*\):.*/\1/p')

# request METHOD PATH BODY-FILE HEADER...: its answer is in $out/answer. Fails, with the answer, unless all is well.
request() {
  local method=$1 path=$2 body=$3 line
  shift 3
  exec 3<>"/dev/tcp/${origin%:*}/${origin##*:}"
  {
    printf '%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n' "$method" "$path" "$origin"
    printf 'Content-Length: %s\r\n' "$(wc -c <"$body")"
    [ $# -eq 0 ] || printf '%s\r\n' "$@"
    printf '\r\n'
    cat "$body"
  } >&3 2>/dev/null || true
  IFS= read -r line <&3
  while IFS= read -r header <&3 && [ "$header" != $'\r' ]; do :; done
  cat <&3 >"$out/answer"
  exec 3>&-
  case $line in
    HTTP/1.1\ 20?*) ;;
    *)
      echo "$method: ${line%$'\r'}: $(cat "$out/answer")" >&2
      return 1
      ;;
  esac
}

# call METHOD MORE-FIELDS
call() {
  local ids="\"workflow_run_backend_id\":\"$run\",\"workflow_job_run_backend_id\":\"$run\""
  printf '{%s%s}' "$ids" "$2" >"$out/call"
  request POST "/twirp/github.actions.results.api.v1.ArtifactService/$1" "$out/call" \
    'Content-Type: application/json' "Authorization: Bearer $ACTIONS_RUNTIME_TOKEN"
}

# field NAME: of the answer.
field() {
  sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$out/answer"
}

# begin NAME: then $path can be written to.
begin() {
  call CreateArtifact ",\"name\":\"$1\",\"version\":7,\"mime_type\":\"application/zip\""
  path=$(field signed_upload_url)
  path=${path#"$url"}
}

# blocks FILE BYTES-A-BLOCK: sends it in pieces and lists them.
blocks() {
  local bytes number=0 id list=
  bytes=$(wc -c <"$1")
  while [ $((number * $2)) -lt "$bytes" ]; do
    dd if="$1" of="$out/block" bs="$2" skip="$number" count=1 2>/dev/null
    id=$(printf 'block-%08d' "$number" | base64)
    request PUT "$path&comp=block&blockid=${id//=/%3D}" "$out/block" 'x-ms-version: 2025-11-05'
    list="$list<Latest>$id</Latest>"
    number=$((number + 1))
  done
  printf '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><BlockList>%s</BlockList>' "$list" >"$out/list"
  request PUT "$path&comp=blocklist" "$out/list" 'x-ms-blob-content-type: application/zip'
}

case $1 in
  upload) # NAME FILE BYTES-A-BLOCK
    begin "$2"
    blocks "$3" "${4:-8388608}"
    hash=$(sha256sum <"$3" | cut -d' ' -f1)
    call FinalizeArtifact ",\"name\":\"$2\",\"size\":\"$(wc -c <"$3")\",\"hash\":\"sha256:$hash\""
    echo "uploaded $2 as $(field artifact_id)"
    ;;
  half) # NAME FILE: never finished
    begin "$2"
    request PUT "$path&comp=block&blockid=YQ%3D%3D" "$3"
    ;;
  download) # NAME: to standard output
    call ListArtifacts ",\"name_filter\":\"$2\""
    id=$(field database_id)
    call ListArtifacts ",\"id_filter\":\"$id\""
    digest=$(field digest)
    call GetSignedArtifactURL ",\"name\":\"$2\""
    path=$(field signed_url)
    : >"$out/none"
    request GET "${path#"$url"}" "$out/none"
    [ "$digest" = "sha256:$(sha256sum <"$out/answer" | cut -d' ' -f1)" ]
    cat "$out/answer"
    ;;
  delete) # NAME
    call DeleteArtifact ",\"name\":\"$2\""
    ;;
  list)
    call ListArtifacts ""
    cat "$out/answer"
    echo
    ;;
esac
