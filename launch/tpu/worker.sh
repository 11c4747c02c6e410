#!/bin/bash
# On a TPU VM, by `python -m launch.tpu.queued`:  worker.sh install | start REVISION ARGUMENTS... | watch | stop
# The job is a unit of systemd: it outlives the connection, and gets SIGTERM when the machine is taken away.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
environment=$HOME/environment # outside the code, which is replaced at every start
log=$HOME/hallujax.log

property() { systemctl show hallujax --property="$1" --value; }

case $1 in
install)
  # The images have Python 3.10. uv brings one of its own.
  python3 -m pip install --quiet --user uv
  [[ -d $environment ]] || python3 -m uv venv --quiet --python 3.11 "$environment"
  python3 -m uv pip install --quiet --python "$environment/bin/python" "${here}[video,gcs,tpu]"
  ;;
stop)
  sudo systemctl stop hallujax 2>/dev/null || true # there may be none
  ;;
start)
  bash "$0" stop # an earlier start, if another host ended first
  sudo systemctl reset-failed hallujax 2>/dev/null || true
  rm -f "$log"
  sudo systemd-run --quiet --unit=hallujax --remain-after-exit --uid="$(id -u)" --working-directory="$here" \
    --property=KillMode=mixed --property=TimeoutStopSec=120 \
    --property=StandardOutput="append:$log" --property=StandardError="append:$log" \
    --setenv=HOME="$HOME" --setenv=PYTHONUNBUFFERED=1 \
    --setenv=PYTHONPATH="$here" --setenv=HALLUJAX_REVISION="$2" \
    "$environment/bin/python" -m hallujax.cli "${@:3}"
  ;;
watch)
  # May be run again, and after the end: then it prints the log again and returns the code at once.
  main=$(property MainPID)
  if ((main)); then tail --pid="$main" --follow --lines=+1 "$log"; else cat "$log"; fi
  while [[ $(property SubState) == running ]]; do sleep 1; done
  code=$(property ExecMainStatus)
  [[ $(property ExecMainCode) == 1 ]] || code=$((128 + code)) # not an exit, a signal
  exit "$code"
  ;;
esac
