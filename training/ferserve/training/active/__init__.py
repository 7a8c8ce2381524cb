"""S2's weakly supervised active incremental learning (Xu et al., Algorithm 1) as a tool: from web pictures to a run.

One folder holds a campaign, in plain files: `web.json` and `shards/` (what `build` made of the pictures), `rounds/N/`
(what `rank`, `select` and `absorb` left of each round) and `labels.jsonl` (what people said, a line a label).
"""
