"""The command that runs another one on a cluster; the front door lists it."""

import os
import subprocess
import sys

import typer

import options
import terminal


def submit(
    words: options.Submitted,
    job: options.JobAddress = None,
    print_only: options.PrintOnly = False,
) -> None:
    """Run a command on a cluster's head: submit CLUSTER.yaml -- search DATA ..., or --job ADDRESS -- search ..."""
    from cluster import submission
    from cluster.yaml_check import checked_cluster_file

    if job is None:
        cluster, arguments = submission.split(words)
        submission.check_arguments(arguments, f"convscout submit {cluster}")
        described = checked_cluster_file(cluster)
        command = submission.ray_submit(cluster, arguments)
    else:
        arguments, described = words, None
        submission.check_arguments(arguments, f"convscout submit --job {job}")
        command = submission.ray_job_submit(job, arguments)
    for sentence in submission.left_behind(arguments, described):
        terminal.tell(sentence)
    if print_only:
        print(submission.printed(command))
        return
    ray = [sys.executable, "-m", "ray.scripts.scripts", *command[1:]]
    done = subprocess.run(ray, check=False, env=submission.environment(os.environ))
    raise typer.Exit(done.returncode if done.returncode >= 0 else 1)
