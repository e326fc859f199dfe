#!/usr/bin/env bash
# One real Apache Kafka node (KRaft, broker and controller in one process) on loopback, for tests and benchmarks.
#
#   start.sh fetch                             fetch the broker's jars with Maven, if they are not here yet
#   start.sh DATA_DIR PORT CONTROLLER_PORT     the same, then format DATA_DIR if it is new, then run in the foreground
#
# The process that was started becomes the broker (exec), so its pid is the one to signal: SIGTERM stops it cleanly,
# and starting again with the same arguments goes on with the same data.  Needs Java 17 or newer; Maven only to fetch.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# The directory carries the checksum of the POM: a changed POM fetches anew, and a broker that is running keeps its jars.
jars=$here/lib/$(cksum < "$here/pom.xml" | cut -d ' ' -f 1)

fetch() (
  [ ! -d "$jars" ] || exit 0
  command -v mvn > /dev/null || { echo "start.sh: Maven (mvn) is needed to fetch Apache Kafka" >&2; exit 1; }
  mkdir -p "$here/lib"
  partial=$(mktemp -d "$here/lib/.partial.XXXXXX")
  trap 'rm -rf "$partial"' EXIT
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$partial" -DincludeScope=runtime >&2
  chmod 755 "$partial"
  # One rename, so that nobody ever sees half of the jars.  When another fetch has won meanwhile, mv puts ours inside
  # the winner's directory: then it is dropped.
  mv "$partial" "$jars"
  rm -rf "${jars:?}/$(basename "$partial")"
)

write_properties() {
  cat > "$1/server.properties" << P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$3
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$1/logs

# One node: nothing can be replicated, and one partition of each internal topic is enough.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
num.partitions=1
num.network.threads=2
num.io.threads=4
# A killed broker can register again only when its old session has ended: 3 s, not 9 s.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# A topic that a test did not create is a mistake in the test.
auto.create.topics.enable=false

# 32 MiB: a record of 20 MB has to get through.
message.max.bytes=33554432
replica.fetch.max.bytes=33554432

# Nothing is ever deleted for its age or size (events carry old timestamps), and any timestamp is accepted;
# delete_records and topic deletion still work, and free their disk space after a second.
log.retention.ms=-1
log.retention.bytes=-1
log.message.timestamp.after.max.ms=9223372036854775807
log.segment.bytes=134217728
log.segment.delete.delay.ms=1000
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500

# Compacted topics compact at once, with little memory (the default takes 128 MB of heap).
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.backoff.ms=500

# Groups: no wait for members that may come, and short session time-outs are allowed.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
P
}

main() {
  fetch
  [ "${1:-}" != fetch ] || return 0
  [ $# -eq 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
  mkdir -p "$1"
  local data
  data=$(cd "$1" && pwd)
  write_properties "$data" "$2" "$3"
  local java=(java -Xmx1g -XX:+UseSerialGC -cp "$jars/*"
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
    -Dorg.slf4j.simpleLogger.showDateTime=true
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS")
  if [ ! -e "$data/logs/meta.properties" ]; then
    # Any 16 bytes in base64 will do for the cluster id; these say "stillwatch-tests".
    "${java[@]}" -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format \
      -t c3RpbGx3YXRjaC10ZXN0cw -c "$data/server.properties" > /dev/null
  fi
  exec "${java[@]}" kafka.Kafka "$data/server.properties"
}

main "$@"
