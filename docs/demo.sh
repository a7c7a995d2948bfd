#!/bin/sh
# Ingests this folder and asks three questions about it: sh docs/demo.sh path/to/rag
set -eu

rag=${1:-rag}
docs=$(dirname "$0")

# A collection of its own, so that the demo's passages do not mix with yours, and an answerer that costs nothing.
export RAG_STORE__COLLECTION=demo
export RAG_LLM__PROVIDER=extractive

bold=''
plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m')
    plain=$(printf '\033[0m')
fi

say() {
    printf '%s%s%s\n' "$bold" "$1" "$plain"
}

say "rag ingest $docs"
"$rag" ingest "$docs"

for question in \
    'How is a changed file updated?' \
    'What does it mean that a citation is verified?' \
    'Can several processes use the embedded store?'
do
    printf '\n'
    say "rag ask '$question'"
    "$rag" ask "$question"
done
