"""The names that other projects have for samplers and schedules, and where each list is from."""

# crowsonkb/k-diffusion, k_diffusion/sampling.py, 0.1.1.post1
K_DIFFUSION = (
    *("sample_euler", "sample_euler_ancestral", "sample_heun", "sample_dpm_2"),
    *("sample_dpm_2_ancestral", "sample_lms", "sample_dpm_fast", "sample_dpm_adaptive"),
    *("sample_dpmpp_2s_ancestral", "sample_dpmpp_sde", "sample_dpmpp_2m", "sample_dpmpp_2m_sde"),
    "sample_dpmpp_3m_sde",
)
K_DIFFUSION_SCHEDULES = (
    *("get_sigmas_karras", "get_sigmas_exponential", "get_sigmas_polyexponential", "get_sigmas_vp"),
)

# Comfy-Org/ComfyUI, comfy/samplers.py (SAMPLER_NAMES, SCHEDULER_NAMES), commit 3cd7b32
COMFYUI = (
    *("euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2"),
    *("exp_heun_2_x0", "exp_heun_2_x0_sde", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast"),
    *("dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde"),
    *("dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
    *("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm"),
    *("lcm", "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp"),
    *("res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "gradient_estimation"),
    *("gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3", "sa_solver"),
    *("sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2"),
)
COMFYUI_SCHEDULES = (
    *("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal"),
    *("linear_quadratic", "kl_optimal"),
)

# AUTOMATIC1111/stable-diffusion-webui 1.10, modules/sd_samplers_kdiffusion.py and
# sd_samplers_timesteps.py: labels and internal names, with those of 1.5 that name a schedule
A1111 = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE"),
    *("Euler a", "Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart"),
    *("DDIM", "PLMS", "UniPC", "LCM"),
    *("DPM++ 2M Karras", "DPM++ SDE Karras", "DPM++ 2M SDE Exponential", "DPM++ 2M SDE Karras"),
    *("DPM++ 2M SDE Heun Karras", "DPM++ 2M SDE Heun Exponential", "DPM++ 3M SDE Karras"),
    *(
        "DPM++ 3M SDE Exponential",
        "DPM++ 2S a Karras",
        "LMS Karras",
        "DPM2 Karras",
        "DPM2 a Karras",
    ),
    *("DPM++ 2M SGM Uniform", "Euler a Beta", "Euler Simple", "Heun Align Your Steps"),
    *("k_euler_a", "k_euler_ancestral", "k_euler", "k_lms", "k_heun", "k_dpm_2", "k_dpm_2_a"),
    *("k_dpmpp_2s_a", "k_dpmpp_2m", "k_dpmpp_sde", "k_dpmpp_2m_sde", "k_dpm_fast", "k_dpm_ad"),
    *("k_lms_ka", "k_dpm_2_ka", "k_dpm_2_a_ka", "k_dpmpp_2s_a_ka", "k_dpmpp_2m_ka"),
    *("k_dpmpp_sde_ka", "k_dpmpp_2m_sde_ka"),
)
A1111_SCHEDULES = (
    *("Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform"),
    *("KL Optimal", "Align Your Steps", "Simple", "Normal", "DDIM", "Beta"),
)

# huggingface/diffusers 0.42.1: the public names that end in Scheduler
DIFFUSERS = (
    *("AmusedScheduler", "BlockRefinementScheduler", "CMStochasticIterativeScheduler"),
    *("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "CosineDPMSolverMultistepScheduler"),
    *("DDIMInverseScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler"),
    *("DDPMScheduler", "DDPMWuerstchenScheduler", "DEISMultistepScheduler"),
    *("DPMSolverMultistepInverseScheduler", "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler"),
    *("DPMSolverSinglestepScheduler", "DiscreteDDIMScheduler", "EDMDPMSolverMultistepScheduler"),
    *("EDMEulerScheduler", "EntropyBoundScheduler", "EulerAncestralDiscreteScheduler"),
    *("EulerDiscreteScheduler", "FlowMapEulerDiscreteScheduler"),
    *("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"),
    *("HeliosDMDScheduler", "HeliosScheduler", "HeunDiscreteScheduler", "IPNDMScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "KarrasVeScheduler"),
    *("LCMScheduler", "LMSDiscreteScheduler", "LTXEulerAncestralRFScheduler"),
    *("MiniMaxH3Scheduler", "PNDMScheduler", "PiflowScheduler", "RFD4ProteinaScheduler"),
    *("RePaintScheduler", "SASolverScheduler", "SCMScheduler", "ScoreSdeVeScheduler"),
    *("TCDScheduler", "UnCLIPScheduler", "UniPCMultistepScheduler", "VQDiffusionScheduler"),
)
DIFFUSERS_SCHEDULES = (
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"),
    *("use_flow_sigmas", "linspace", "leading", "trailing"),
)

# vladmandic/sdnext, modules/sd_samplers_diffusers.py, commit 431bcc3
SD_NEXT = (
    *("Default", "UniPC", "DDIM", "Euler", "Euler a", "Euler SGM", "Euler EDM", "Euler FlowMatch"),
    *("DPM++", "DPM++ 2M", "DPM++ 3M", "DPM++ 1S", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M EDM"),
    *("DPM++ Cosine", "DPM SDE", "DPM++ Inverse", "DPM++ 2M Inverse", "DPM++ 3M Inverse"),
    *("DPM2 FlowMatch", "DPM2a FlowMatch", "DPM2++ 2M FlowMatch", "DPM2++ 2S FlowMatch"),
    *("DPM2++ SDE FlowMatch", "DPM2++ 2M SDE FlowMatch", "DPM2++ 3M SDE FlowMatch", "Heun"),
    *("Heun FlowMatch", "DEIS", "SA Solver", "DC Solver", "VDM Solver", "BDIA DDIM", "PNDM"),
    *("IPNDM", "DDPM", "LMSD", "KDPM2", "KDPM2 a", "CMSI", "LCM", "TCD", "TDD", "PeRFlow"),
    *("UFOGen", "Same as primary"),
)

SAMPLERS = (*K_DIFFUSION, *COMFYUI, *A1111, *DIFFUSERS, *SD_NEXT)
SCHEDULES = (*K_DIFFUSION_SCHEDULES, *COMFYUI_SCHEDULES, *A1111_SCHEDULES, *DIFFUSERS_SCHEDULES)
