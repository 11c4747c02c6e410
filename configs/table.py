"""The steps of both papers and their references on one set of streams: the table.

hallujax train --config=configs/table.py:mocap_rgbd,cross_subject --workdir=runs/table
"""

from ml_collections import ConfigDict

from configs import admd, base, baselines, hallucination, streams, two_stream


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, baselines.add, two_stream.add, hallucination.add, admd.add)
