import numpy as np
import pandas as pd

import paddle_srgnn as srgnn  # CI runs these lines where only the wheel is installed

click = np.arange(8000)  # sessions of four clicks along a ring of 50 items, a click every three minutes
frame = pd.DataFrame({"visit": click // 4, "sku": (click // 4 * 7 + click % 4) % 50, "at": 1_700_000_000 + 180 * click})
data = srgnn.dataset_from_frame(frame, session="visit", item="sku", time="at", test_days=2)
run = srgnn.train(data, out="runs/quickstart", epochs=3, embedding_dim=16, batch_size=64, learning_rate=0.01)
for contender in (run, srgnn.baselines(data)[3]):  # V-SKNN
    print(contender.name, srgnn.evaluate(contender, data, ks=(1, 20)).metrics)
assert run.recommender().recommend([3, 4, 5], k=3).items[0] == "6"
