"""Names of other projects' samplers that no sampler here has, and why."""

_CFG_PP = "CFG++ is guidance of first-order steps: use --sampler euler --guide cfg_pp"
_TOKENS = "it samples tokens, which have no noise level"
_UPWARDS = "it goes from a picture to noise: use kdiff.invert"
_OWN_MODEL = "it is made for the network of one project, which kdiff does not read"
_FLOWS = "here a sampler is the same on flows: use"

REFUSED: dict[str, str] = {
    # ComfyUI
    **dict.fromkeys(
        (
            *("euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp"),
            *("dpmpp_2m_cfg_pp", "res_multistep_cfg_pp", "res_multistep_ancestral_cfg_pp"),
            "gradient_estimation_cfg_pp",
        ),
        _CFG_PP,
    ),
    # diffusers
    **dict.fromkeys(
        (
            *("AmusedScheduler", "BlockRefinementScheduler", "DiscreteDDIMScheduler"),
            *("EntropyBoundScheduler", "VQDiffusionScheduler"),
        ),
        _TOKENS,
    ),
    **dict.fromkeys(
        (
            *("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"),
            *("DPM++ Inverse", "DPM++ 2M Inverse", "DPM++ 3M Inverse"),
        ),
        _UPWARDS,
    ),
    **dict.fromkeys(
        (
            *("CogVideoXDPMScheduler", "DDPMWuerstchenScheduler", "HeliosDMDScheduler"),
            *("HeliosScheduler", "MiniMaxH3Scheduler", "PiflowScheduler", "RFD4ProteinaScheduler"),
            *("SCMScheduler", "UnCLIPScheduler"),
        ),
        _OWN_MODEL,
    ),
    "FlowMapEulerDiscreteScheduler": "its network takes two times",
    "RePaintScheduler": "it fills in masks, which is not what a sampler does",
    # sd.next
    **dict.fromkeys(("Default", "Same as primary"), "it stands for another setting, not a sampler"),
    "DPM++": "of order 1, as in sd.next, it is euler",
    "DC Solver": "its compensation ratios are fitted for each model",
    "VDM Solver": "it is ddpm: use --sampler ddpm",
    "BDIA DDIM": "an exactly invertible DDIM is not here: use --sampler ddim",
    **dict.fromkeys(("TDD", "PeRFlow", "UFOGen"), "it is made for distilled models of one project"),
    "DPM2++ 2M FlowMatch": f"{_FLOWS} dpmpp_2m",
    "DPM2++ 2S FlowMatch": f"{_FLOWS} DPM++ 2S",
    "DPM2++ SDE FlowMatch": f"{_FLOWS} dpmpp_sde",
    "DPM2++ 2M SDE FlowMatch": f"{_FLOWS} dpmpp_2m_sde",
    "DPM2++ 3M SDE FlowMatch": f"{_FLOWS} dpmpp_3m_sde",
}
