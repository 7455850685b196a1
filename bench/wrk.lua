-- One JSON object at the end of a run, for bench/load.py. Times in seconds.
done = function(summary, latency, requests)
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"count": %d, "elapsed": %.6f, "median": %.6f, "p99": %.6f, "failures": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, failures
  ))
end
