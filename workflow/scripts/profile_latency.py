"""Measure the latency of every operation of the space on a device, and check the table on whole networks (Sec. 3.1).

Where profile_latency.table names a file, that table is checked and copied instead.
"""

from tfnas.stages.job import run_stage

if __name__ == "__main__":
    run_stage("profile_latency")
