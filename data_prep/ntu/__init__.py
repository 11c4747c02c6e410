"""NTU RGB+D 60 and 120 (Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2019), from the files that their authors give.

They are had on request from https://rose1.ntu.edu.sg/dataset/actionRecognition and may not be passed on.
"""
