"""Cells on a cluster: `TURNCOAT_CLUSTER=slurm make repro`. Not a stage itself; docs/cluster.md has the use of it.

    options   cluster.yaml: partition, GPUs, time and memory of a stage
    arrays    cells to job arrays, and what each array waits for
    queue     Slurm: submit (through submitit), ask, cancel
    job       what runs on a node: one cell, or the closing of the study
    done      which cells jobs have finished, and their entry into dvc.lock
    head      `make repro`: decides, submits, watches

Jobs run the commands of dvc.yaml and leave a mark each; they never touch DVC. One writer, the closing job or a head,
enters all that is finished into dvc.lock at once. A `dvc repro` in each job would read, lock and write the whole file
for each cell: 5 s a cell at a thousand cells, one after the other. DVC's lock of paths also knows a process by its
number alone, which says nothing on another node.
"""
